#!/usr/bin/env -S nfctl lua
-- Runs exptrack with a decoder from the folder decoders.
--
--   nfctl lua tracker.lua DECODER [QUEUE]
--
-- Queue the packets from the client to the service, and give the connection a
-- helper from its birth, without which the kernel takes no expectations:
--
--   iptables -t raw -A OUTPUT -p tcp --dport 21 -j CT --helper ftp
--   iptables -A INPUT -p tcp --dport 21 -j NFQUEUE --queue-num 0

require "exptrack"

local name, num = arg[1], arg[2]
if not name then
	io.stderr:write("usage: tracker.lua DECODER [QUEUE]\n")
	os.exit(2)
end
local decoder = require("decoders." .. name)
print(exptrack.open(decoder.decode, num))
os.exit(1)
