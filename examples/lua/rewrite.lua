#!/usr/bin/env -S nfctl lua
-- Sets the TTL of queued IPv4 packets to 7, and replaces one word by another of
-- the same length in UDP payloads. Checksums are the script's business: here you
-- see how it is done by hand. (A rule's Lua file has it easier: see limit.lua.)
--
--   nfctl lua rewrite.lua QUEUE OLD NEW

require "nfq"

local num, old, new = arg[1], arg[2], arg[3]
if not new or #old ~= #new then
	io.stderr:write("usage: rewrite.lua QUEUE OLD NEW (two words of the same length)\n")
	os.exit(2)
end

local function be16(n) return string.char(math.floor(n / 256) % 256, n % 256) end

-- checksum returns the Internet checksum of s (RFC 1071) as two bytes.
local function checksum(s)
	if #s % 2 == 1 then s = s .. "\0" end
	local sum = 0
	for i = 1, #s, 2 do
		local a, b = s:byte(i, i + 1)
		sum = sum + a * 256 + b
	end
	while sum > 65535 do sum = sum % 65536 + math.floor(sum / 65536) end
	return be16(65535 - sum)
end

local function plain(s) return (s:gsub("%W", "%%%0")) end

local function rewrite(packet)
	local first, _, _, _, _, _, _, _, _, proto = packet:byte(1, 10)
	if math.floor(first / 16) ~= 4 then return nil end
	local len = first % 16 * 4
	local head = packet:sub(1, 8) .. string.char(7) .. packet:sub(10, 10) .. "\0\0" .. packet:sub(13, len)
	head = head:sub(1, 10) .. checksum(head) .. head:sub(13)
	local body = packet:sub(len + 1)
	if proto == 17 and #body >= 8 then
		local payload = body:sub(9):gsub(plain(old), plain(new))
		local udp = body:sub(1, 6) .. "\0\0" .. payload
		local pseudo = head:sub(13, 20) .. "\0\17" .. be16(#udp)
		body = udp:sub(1, 6) .. checksum(pseudo .. udp) .. payload
	end
	return head .. body
end

local h = assert(nfq.open())
nfq.unbind_pf(h, "inet")
nfq.bind_pf(h, "inet")
local q = assert(nfq.create_queue(h, num))
assert(nfq.set_mode(q, "packet"))
io.stderr:write("ready\n")

local _, emsg = nfq.catch(h, function(qdata)
	return "accept", rewrite(nfq.get_payload(qdata))
end)
io.stderr:write("catch: ", tostring(emsg), "\n")
os.exit(1)
