/* offload DEVICE on|off
 * Large segments of TCP on a device, made (GSO, TSO) and put together (GRO), as
 * ethtool -K does: ioctl SIOCETHTOOL (linux/ethtool.h). */
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

int main(int c, char **v)
{
	static const unsigned cmds[] = { ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO };
	struct ifreq r;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (c != 3 || fd < 0) return 2;
	for (int i = 0; i < 3; i++) {
		struct ethtool_value e = { cmds[i], !strcmp(v[2], "on") };
		memset(&r, 0, sizeof r);
		strncpy(r.ifr_name, v[1], IFNAMSIZ - 1);
		r.ifr_data = (void *)&e;
		if (ioctl(fd, SIOCETHTOOL, &r)) { perror("offload"); return 1; }
	}
	return 0;
}
