-- A rule's file: no more than so many UDP packets a second from one sender. Small
-- ones pass with their TTL lowered, so that they do not get far.
--
--   nfctl queue --attach 'input udp > :9000' --rule 'lua limit.lua'

local most = 10
local second, seen = 0, {}

return function(packet)
	if not packet.udp then return end -- another rule decides
	local now = packet.time:sub(1, 19)
	if now ~= second then second, seen = now, {} end
	local src = packet.ip.src
	seen[src] = (seen[src] or 0) + 1
	if seen[src] > most then return "drop" end
	if packet.length < 40 then packet.ip.ttl = 3 end
	return "accept", 0x1
end, {"time", "ip.src", "udp.dport", "length", "payload"}
