-- Decoder for the echo service: on its control connection the client says
-- "ECHO PORT", then it connects to that port of the server and gets back what it
-- sends.

module("decoders.echo", package.seeall)

function decode(payload)
	local list = {}
	for port in payload:gmatch "ECHO (%d+)\n" do
		list[#list + 1] = {proto = "tcp", dport = tonumber(port), timeout = 30}
	end
	return list
end
