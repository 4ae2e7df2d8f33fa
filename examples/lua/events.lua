#!/usr/bin/env -S nfctl lua
-- Prints connection tracking events as they happen.
--
--   nfctl lua events.lua conntrack|expect|both [new] [update] [destroy]
--
-- Without event names it prints all of them.

require "nfct"

local subsys = arg[1]
if subsys ~= "conntrack" and subsys ~= "expect" and subsys ~= "both" then
	io.stderr:write("usage: events.lua conntrack|expect|both [new] [update] [destroy]\n")
	os.exit(2)
end

local wanted = {unpack(arg, 2)}
if #wanted == 0 then wanted[1] = "all" end

io.stdout:setvbuf "line"

local h = assert(nfct.open(subsys, unpack(wanted)))

if subsys ~= "expect" then
	nfct.ct_callback_register(h, function(msgtype, ct)
		print("conntrack", nfct.tostring(ct, msgtype))
	end)
end
if subsys ~= "conntrack" then
	nfct.exp_callback_register(h, function(msgtype, exp)
		print("expect", nfct.exp_tostring(exp, msgtype))
	end)
end

io.stderr:write("watching\n")
local _, emsg, errno = nfct.catch(h)
io.stderr:write("catch: ", tostring(emsg), " (", tostring(errno), ")\n")
os.exit(1)
