package process

import (
	"fmt"
	"os/user"
	"strconv"
)

// A User is who a process runs as.
type User struct {
	UID, GID uint32
	Groups   []uint32 // besides GID
}

// LookUser finds a user by name or number. A number that the system does not know is a
// user whose group has the same number.
func LookUser(name string) (User, error) {
	u, err := user.Lookup(name)
	if err != nil {
		n, bad := strconv.ParseUint(name, 10, 32)
		if bad != nil || n == 1<<32-1 {
			return User{}, fmt.Errorf("user %s: there is no such user", name)
		}
		if u, err = user.LookupId(name); err != nil {
			return User{UID: uint32(n), GID: uint32(n)}, nil
		}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return User{}, fmt.Errorf("user %s: %w", name, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return User{}, fmt.Errorf("user %s: %w", name, err)
	}
	found := User{UID: uint32(uid), GID: uint32(gid)}
	groups, err := u.GroupIds()
	if err != nil {
		return User{}, fmt.Errorf("groups of user %s: %w", name, err)
	}
	for _, g := range groups {
		if n, err := strconv.ParseUint(g, 10, 32); err == nil {
			found.Groups = append(found.Groups, uint32(n))
		}
	}
	return found, nil
}
