package lua

import (
	"strings"
	"testing"
)

// Whatever a script gives to the functions, the answer is a result or one of their
// own errors: never a fault of this program.
func TestRandomArguments(t *testing.T) {
	l := newCtLab(t)
	got, err := l.try(`
		local seed = 1
		local function random(n) seed = (seed * 16807) % 2147483647 return seed % n + 1 end
		local function some(list) return list[random(#list)] end
		local function pool()
			local h, b, e, q = nfct.open("conntrack"), nfct.open("both"), nfct.open("expect"), nfq.open()
			local queue = nfq.create_queue(q, random(3))
			local dead = nfct.new() nfct.destroy(dead)
			local exp = nfct.exp_new(flow(1, 2), flow(3, 4), flow(5, 6), 7)
			local list = {h, b, e, q, queue, dead, exp, nfct.new(), flow(1, 2), flow(1, 2, "tcp"), true, false, -1, 0, 7, 1e300, -1e300, 0/0, 1/0, 70000,
				"", "x", "conntrack", "both", "none", "new", "all", "create", "get", "dump", "mark", "port-src", "ipv4-src", "ipv6-dst", "helper-name", "connlabels",
				"grp-icmp", "exp-master", "exp-timeout", "1.2.3.4", "::1", "tcp", "inet", "setup-reply", "undo-snat", "permanent", "80", "0x1p3", "packet",
				{}, print, function() error("mine") end, function() return "stolen" end, string.rep("9", 400), newproxy()}
			return list, function()
				for _, x in ipairs{h, b, e} do pcall(nfct.setblocking, x) pcall(nfct.close, x) end
				pcall(nfq.close, q)
			end, {h, b, e, q}
		end
		local all = {}
		for name, f in pairs(nfct) do all[#all+1] = {"nfct."..name, f} end
		for name, f in pairs(nfq) do if name ~= "loop" then all[#all+1] = {"nfq."..name, f} end end
		table.sort(all, function(a, b) return a[1] < b[1] end)
		local quiet = print
		for round = 1, 60 do
			local list, close, handles = pool()
			for i = 1, 100 do
				for k = 1, 4 do pcall(k == 4 and nfq.setblocking or nfct.setblocking, handles[k]) end
				local f = some(all)
				if f[1]:sub(-12) ~= ".setblocking" then
					local args, n = {}, random(6) - 1
					for k = 1, n do args[k] = some(list) end
					if random(2) == 1 and n > 0 then args[1] = some{handles[1], handles[2], handles[3], handles[4], list[5], list[7], list[9]} end
					local r = {pcall(f[2], unpack(args, 1, n))}
					if not r[1] and (type(r[2]) ~= "string" or r[2]:find("runtime error") or r[2]:find("interface conversion") or r[2]:find("reflect")) then
						io.stderr:write(f[1], ": ", tostring(r[2]), "\n") bad = true
					end
				end
			end
			close()
		end
		assert(not bad) quiet("done")`)
	if err != nil || !strings.HasSuffix(got, "done") {
		t.Errorf("%v\n%.2000s", err, got)
	}
}
