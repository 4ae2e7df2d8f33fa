-- A netfilter-lua script that accepts what comes on queue 0.
local h = assert(nfq.open())
local q = assert(nfq.create_queue(h, 0))
assert(nfq.set_mode(q, "packet", 128))
nfq.catch(h, function() return "accept" end)
