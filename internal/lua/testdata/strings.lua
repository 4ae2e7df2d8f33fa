-- What Lua's functions for texts return, as checksums: a line for each pattern,
-- or other subject, over all texts and functions. strings.txt is what Lua 5.1.5
-- makes of this:
--
--	lua5.1 strings.lua >strings.txt
--
-- With arguments it shows the results themselves of the lines so named.
local shown = {}
for _, name in ipairs(arg or {}) do shown[name] = true end

local name, sum, count
local function begin(s) name, sum, count = s, 1, 0 end
local function finish() print(string.format("%q %.0f %d", name, sum, count)) end

local function note(...)
	local t = {}
	for i = 1, select("#", ...) do
		local v = select(i, ...)
		t[i] = type(v) == "string" and string.format("%q", v) or type(v) == "function" and "function" or tostring(v)
	end
	local line = table.concat(t, " ")
	if shown[name] then print(line) end
	for i = 1, #line do sum = (sum * 31 + line:byte(i)) % 2147483648 end
	count = count + 1
end

local function try(f, ...)
	local r = {pcall(f, ...)}
	if not r[1] then r[2] = tostring(r[2]):gsub("^[^:]*:%d+: ", ""):gsub("to '[^']*'", "to '?'") end
	note(unpack(r))
end

local texts = {"", "a", "abc", "aaab", "hello world from Lua", "key = value", "  trim me  ", "(a(b)c)", "THE (quick) fox",
	"\0a\0b", "1,2,,3", "f(a(b)c) d", "abcabc", "x^y$z", "\200\201abc", "%d", "[]]", "a-b-c", "2024-01-02T03:04:05", "aXb", "\n\t x"}
local patterns = {"", "a", "a*", "a+", "a-", "a?", "(a*)", "(a)(b)", ".", ".*", ".-", "^a", "a$", "^", "$", "^$", "%w+", "%s*",
	"(%w+) = (%w+)", "^%s*(.-)%s*$", "%b()", "%baa", "%f[%w]%w+", "%f[%W]", "%f[%z]", "()", "()b()", "(.)%1", "()%1", "(%w+)%s*%1",
	"[abc]", "[^abc]", "[a-c]+", "[]]", "[^]]", "[%]]", "[a-]", "[-a]", "[%w_]+", "[%a-z]", "[a-%%]", "[%d-]", "[\200-\255]", "[a-c-e]",
	"[^%s]+", "[$]", "%", "[", "[a", "[]", "[^", "[%", "(", ")", "(()", "%1", "%0", "(a%1)", "%b", "%bx", "%f", "%fa", "a**", "a+*", "x^y",
	"y$z", "%z", "%Z", "%d%d%d%d%-%d%d", "(%d+)-(%d+)-(%d+)", "%%", "%A", "%u%u", "%L", "%U+", "%p", "%P", "%c", "%C", "%S", "%D", "%W",
	"%X", "((a)(b))", "(a(b(c)))", "a.-c", "a.-b$", ".-$", "(.-)(b)", "%x+", "-", "--", "*", "+a", "?", "(,)", ",*", "$a", "a^", "%$",
	"(a$)", "^^a", "^(.)(.*)$", "(.*)c", "(.+)%1", "a?b?c?", "(a?)(b?)", "a?a?a?aaa", ("(a)"):rep(32), ("(a)"):rep(33), ("()"):rep(32)}

for _, p in ipairs(patterns) do
	begin(p)
	for _, s in ipairs(texts) do
		for init = -3, 3 do try(string.find, s, p, init) end
		try(string.match, s, p)
		try(string.match, s, p, 2)
		try(function()
			local r = {}
			for a, b in string.gmatch(s, p) do
				r[#r + 1] = tostring(a) .. ":" .. tostring(b)
				if #r > 50 then break end
			end
			return table.concat(r, "|")
		end)
		for _, by in ipairs{"<%0>", "%1", "%2.%%.%x", "x%", 5, {a = "A", abc = 1, hello = false, b = true},
			function(a, b) if a ~= "b" then return "[" .. tostring(a) .. tostring(b) .. "]" end end} do
			try(string.gsub, s, p, by)
			try(string.gsub, s, p, by, 1)
		end
		try(string.gsub, s, p, "x", 0)
		try(string.gsub, s, p, "x", -1)
	end
	finish()
end

for _, s in ipairs(texts) do
	begin("text " .. s)
	for _, f in ipairs{"upper", "lower", "reverse", "len"} do try(string[f], s) end
	for i = -4, 4 do
		try(string.rep, s, i)
		try(string.byte, s, i)
		try(string.sub, s, i)
		try(string.find, s, "b", i)
		try(string.find, s, "a-", i, true)
		try(string.find, s, "", i)
		for j = -4, 4 do
			try(string.sub, s, i, j)
			try(string.byte, s, i, j)
		end
	end
	finish()
end

for _, f in ipairs{"%d", "%5d", "%-5d|", "%05d", "%+d", "% d", "%x", "%X", "%#x", "%o", "%c", "%e", "%E", "%f", "%g", "%G", "%.3f",
	"%10.2f", "%q", "%s", "%10s", "%-10s|", "%.2s", "%5.1s", "%i", "%u", "%%", "%y", "%", "%100d", "%-+ #0d", "%-+ #00d", "%.100f", "%99d",
	"%.20s", "%.0f", "%5.3d", "%+.2e"} do
	begin("format " .. f)
	for _, v in ipairs{65, "12", -3.7, "x"} do try(string.format, f, v) end
	finish()
end

begin("arguments")
for _, f in ipairs{string.find, string.match, string.gsub, string.gmatch, string.rep, string.upper, string.byte, table.concat} do
	try(f) try(f, {}) try(f, "a") try(f, "a", {}) try(f, "a", "a", {}) try(f, "a", "a", nil) try(f, 12, 1) try(f, 12, "1", "1")
end
finish()

begin("gsub")
for _, by in ipairs{true, 5, {b = {}}, function() return {} end, "%9", "%2", "x%", "%%", function() return 7 end, function() return false end} do
	for _, p in ipairs{"b", "(b)", "()", "."} do try(string.gsub, "abc", p, by) end
end
finish()

begin("concat")
for _, t in ipairs{{}, {1, 2, 3}, {1, {}, 3}, {"a", nil, "c"}, {1.5, 2}, {[-1] = "a", [0] = "b", "c"}} do
	try(table.concat, t) try(table.concat, t, ", ") try(table.concat, t, 5)
	for i = -1, 3 do try(table.concat, t, ",", i) for j = -1, 3 do try(table.concat, t, ",", i, j) end end
end
finish()
