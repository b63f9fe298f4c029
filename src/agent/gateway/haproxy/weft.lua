-- What a row of the table cannot say by itself: conditions beside host and path, wider hostnames, changes of headers
-- and paths, redirects. Rows name a program by its hash; a program is text that src/agent/gateway/haproxy/program.ts writes
-- and `parse` here reads, once. All user text in it is percent-encoded, and in commands it is hexadecimal.
local dir = os.getenv('WEFT_ENGINE_DIR')
local rex = require('rex_pcre2')

local file = {
  routes = dir .. '/routes.map',
  programs = dir .. '/programs.map',
  splits = dir .. '/splits.map',
  names = dir .. '/names.map',
  places = dir .. '/places.map',
}
local maps = {
  routes = Map.new(file.routes, Map._beg),
  programs = Map.new(file.programs, Map._str),
  splits = Map.new(file.splits, Map._beg),
  names = Map.new(file.names, Map._str),
  places = Map.new(file.places, Map._str),
}

math.randomseed(os.time())

-- Errors in here, by kind: asked for with `weft faults`.
local faults = { program = 0, run = 0, regex = 0 }

local function unhex(s)
  return (s:gsub('..', function(b) return string.char(tonumber(b, 16)) end))
end
local function hex(s)
  return (s:gsub('.', function(c) return string.format('%02x', c:byte()) end))
end
local function unescape(s)
  return (s:gsub('%%(%x%x)', function(b) return string.char(tonumber(b, 16)) end))
end

-- A pattern may be as slow as its author likes: the number of steps is bounded, and what exceeds it does not match.
local function compile(pattern)
  local ok, made = pcall(rex.new, '(*LIMIT_MATCH=20000)(*LIMIT_DEPTH=2000)^(?:' .. pattern .. ')$')
  if ok then return made end
  faults.regex = faults.regex + 1
  return nil
end
local function matches(pattern, text)
  if pattern == nil then return false end
  local ok, found = pcall(pattern.find, pattern, text)
  if not ok then
    faults.regex = faults.regex + 1
    return false
  end
  return found ~= nil
end

-- ---- programs ----

local function change(list, op, token)
  local name = token()
  list[#list + 1] = { op = op, name = name, value = op ~= 'delete' and token() or nil }
end

-- A condition or an action for each letter; the arguments follow as tokens.
local readers = {
  m = function(c, token) c.method = token() end,
  x = function(c, token) c.path = compile(token()); c.wants_path = true end,
  h = function(c, token) c.headers[#c.headers + 1] = { name = token(), value = token() } end,
  H = function(c, token) c.headers[#c.headers + 1] = { name = token(), pattern = compile(token()) } end,
  q = function(c, token) c.query[#c.query + 1] = { name = token(), value = token() } end,
  Q = function(c, token) c.query[#c.query + 1] = { name = token(), pattern = compile(token()) } end,
  rs = function(c, token) change(c.at.request, 'set', token) end,
  ra = function(c, token) change(c.at.request, 'add', token) end,
  rd = function(c, token) change(c.at.request, 'delete', token) end,
  ss = function(c, token) change(c.at.response, 'set', token) end,
  sa = function(c, token) change(c.at.response, 'add', token) end,
  sd = function(c, token) change(c.at.response, 'delete', token) end,
  uh = function(c, token) c.at.host = token() end,
  uf = function(c, token) c.at.full = token() end,
  up = function(c, token) c.at.from = token(); c.at.to = token() end,
  R = function(c, token)
    c.redirect = { code = token(), scheme = token(), host = token(), port = token(), full = token(), from = token(), to = token(), signal = token() }
  end,
  C = function(c, token)
    c.cors = { origins = {}, credentials = token() == '1', methods = token(), headers = token(), expose = token(), age = token(), signal = token() }
    for origin in token():gmatch('[^ ]+') do c.cors.origins[#c.cors.origins + 1] = origin:lower() end
  end,
  T = function(c, token)
    c.at = { weight = tonumber(token()), row = token(), request = {}, response = {} }
    c.targets[#c.targets + 1] = c.at
    c.total = c.total + c.at.weight
  end,
  A = function(c, token) c.answer = token(); c.signal = token() end,
}

local function parse(text)
  local program = {}
  for part in text:gmatch('[^;]+') do
    local c = { headers = {}, query = {}, targets = {}, total = 0, request = {}, response = {} }
    c.at = c
    local next_token = part:gmatch('([^,]*),?')
    local function token() return unescape(next_token()) end
    while true do
      local op = next_token()
      if op == nil or op == '' then break end
      readers[op](c, token)
    end
    program[#program + 1] = c
  end
  return program
end

local cache, cached = {}, 0
local function program_of(id)
  local known = cache[id]
  if known then return known end
  local text = maps.programs:lookup(id)
  if text == nil then return nil end
  local ok, made = pcall(parse, text)
  if not ok then
    faults.program = faults.program + 1
    return nil
  end
  -- Programs that are no longer used go with the rest: there is no order worth keeping.
  if cached >= 20000 then cache, cached = {}, 0 end
  cache[id], cached = made, cached + 1
  return made
end

-- ---- a request ----

local function form_decode(s)
  return (s:gsub('+', ' '):gsub('%%(%x%x)', function(b) return string.char(tonumber(b, 16)) end))
end

local function query_of(txn)
  local found = {}
  for pair in (txn.f:query() or ''):gmatch('[^&]+') do
    local name, value = pair:match('^([^=]*)=?(.*)$')
    name = form_decode(name)
    if found[name] == nil then found[name] = form_decode(value) end
  end
  return found
end

local function header_of(request, name)
  request.headers = request.headers or request.txn.http:req_get_headers()
  local lines = request.headers[name]
  if lines == nil then return nil end
  local value = lines[0]
  for i = 1, #lines do value = value .. ',' .. lines[i] end
  return value
end

local function holds(c, request)
  if c.method and c.method ~= request.txn.f:method() then return false end
  if c.wants_path and not matches(c.path, request.path) then return false end
  for _, want in ipairs(c.headers) do
    local value = header_of(request, want.name)
    if value == nil then return false end
    if want.value then
      if want.value ~= value then return false end
    elseif not matches(want.pattern, value) then return false end
  end
  if #c.query > 0 then
    request.query = request.query or query_of(request.txn)
    for _, want in ipairs(c.query) do
      local value = request.query[want.name]
      if value == nil then return false end
      if want.value then
        if want.value ~= value then return false end
      elseif not matches(want.pattern, value) then return false end
    end
  end
  return true
end

local function new_path(path, at)
  if at.full then return at.full ~= '' and at.full or '/' end
  if at.from == nil then return path end
  local rest = path:sub(#at.from + 1)
  local to = at.to:sub(-1) == '/' and at.to:sub(1, -2) or at.to
  if rest ~= '' and rest:sub(1, 1) ~= '/' then rest = '/' .. rest end
  local made = to .. rest
  if made:sub(1, 1) ~= '/' then made = '/' .. made end
  return made
end

local function change_headers(http, side, list)
  for _, c in ipairs(list) do
    if c.op == 'set' then http[side .. '_set_header'](http, c.name, c.value)
    elseif c.op == 'add' then http[side .. '_add_header'](http, c.name, c.value)
    else http[side .. '_del_header'](http, c.name) end
  end
end

local function apply(request, at)
  local txn = request.txn
  if at.host then
    txn.http:req_set_header('x-forwarded-host', txn.f:req_hdr('host') or '')
    txn.http:req_set_header('host', at.host)
  end
  if at.full or at.from then txn.http:req_set_path(new_path(request.path, at)) end
  change_headers(txn.http, 'req', at.request)
  if #at.response > 0 then
    request.after = request.after or {}
    request.after[#request.after + 1] = at.response
  end
end

local function answer(txn, code, signal)
  txn:set_var('txn.code', code)
  txn:set_var('txn.row', 'answer|' .. signal)
end

local function redirect(request, r)
  local txn = request.txn
  local tls = txn.f:ssl_fc()
  tls = tls == true or tls == 1
  local scheme = r.scheme ~= '' and r.scheme or (tls and 'https' or 'http')
  local host = r.host ~= '' and r.host or request.host
  local port = r.port
  if port == '' then
    if r.scheme ~= '' then port = scheme == 'https' and '443' or '80' else port = request.port end
  end
  if (scheme == 'http' and port == '80') or (scheme == 'https' and port == '443') then port = '' end
  local path = new_path(request.path, { full = r.full ~= '' and r.full or nil, from = r.full == '' and r.from ~= '-' and r.from or nil, to = r.to })
  local query = txn.f:query()
  txn:set_var('txn.location', scheme .. '://' .. host .. (port ~= '' and ':' .. port or '') .. path .. (query and query ~= '' and '?' .. query or ''))
  answer(txn, r.code, r.signal)
end

local function origin_allowed(origin, allowed)
  local lower = origin:lower()
  for _, pattern in ipairs(allowed) do
    if pattern == '*' or pattern == lower then return true, pattern == '*' end
    local before, behind = pattern:match('^(.-)%*(.*)$')
    if before and #lower > #before + #behind and lower:sub(1, #before) == before and lower:sub(-#behind) == behind then return true, false end
  end
  return false, false
end

-- True where the request was a preflight and has its answer.
local function cors(request, c)
  local txn = request.txn
  local origin = header_of(request, 'origin')
  if origin == nil then return false end
  local asked = header_of(request, 'access-control-request-method')
  local preflight = txn.f:method() == 'OPTIONS' and asked ~= nil
  local allowed, any = origin_allowed(origin, c.origins)
  local list = {}
  local function say(name, value)
    if value ~= nil and value ~= '' then list[#list + 1] = { op = 'set', name = name, value = value } end
  end
  if allowed then
    say('access-control-allow-origin', (any and not c.credentials) and '*' or origin)
    if not any or c.credentials then list[#list + 1] = { op = 'add', name = 'vary', value = 'Origin' } end
    if c.credentials then say('access-control-allow-credentials', 'true') end
    -- The public suite wants it in the answer to a preflight, too.
    say('access-control-expose-headers', (c.expose == '*' and c.credentials) and '' or c.expose)
  end
  if not preflight then
    request.after = request.after or {}
    request.after[#request.after + 1] = list
    return false
  end
  if allowed then
    local wanted = header_of(request, 'access-control-request-headers')
    say('access-control-allow-methods', c.methods == '*' and (c.credentials and asked or '*') or c.methods)
    say('access-control-allow-headers', c.headers == '*' and (c.credentials and wanted or (wanted or '*')) or c.headers)
    say('access-control-max-age', c.age)
  end
  for _, h in ipairs(list) do txn:set_var('txn.' .. h.name:gsub('-', '_'), h.value) end
  answer(txn, '204', c.signal)
  return true
end

local function choose(c)
  if #c.targets == 1 then return c.targets[1] end
  local at = math.random() * c.total
  for _, target in ipairs(c.targets) do
    at = at - target.weight
    if at < 0 then return target end
  end
  return c.targets[#c.targets]
end

-- True where one of the program's candidates took the request.
local function run(id, request)
  local program = program_of(id)
  local txn = request.txn
  if program == nil then
    answer(txn, '500', 'none')
    return true
  end
  for _, c in ipairs(program) do
    if holds(c, request) then
      if c.cors and cors(request, c.cors) then return true end
      if c.redirect then
        redirect(request, c.redirect)
      elseif c.answer then
        answer(txn, c.answer, c.signal)
      else
        apply(request, c)
        local target = choose(c)
        apply(request, target)
        if target.row:sub(1, 1) == 'p' then txn:set_var('txn.row', target.row)
        else answer(txn, target.row:match('^e(%d+)|(.*)$')) end
      end
      if request.after then
        txn:set_priv(request.after)
        txn:set_var('txn.after', '1')
      end
      return true
    end
  end
  return false
end

-- A row that is no program: a pool, a split or an answer.
local function settle(row, request)
  local first = row:sub(1, 1)
  if first == '*' then return run(row:sub(2), request) end
  if first == 'n' then
    answer(request.txn, '404', 'none')
  elseif first == 'w' then
    local found = maps.splits:lookup(row .. '|' .. string.format('%016X', math.random(0, 65535)))
    if found == nil then answer(request.txn, '500', 'none') else return settle(found, request) end
  else
    request.txn:set_var('txn.row', row)
  end
  return true
end

local function search(txn)
  local row = txn:get_var('txn.row')
  local place = txn:get_var('sess.place') or ''
  local host = txn:get_var('txn.host') or ''
  local path = txn:get_var('txn.path') or ''
  local request = { txn = txn, path = path, host = host, port = tostring(txn.f:dst_port()) }
  if row == nil then
    -- An old connection may know its place by a name that has gone since.
    local now = maps.places:lookup(txn:get_var('sess.at'))
    if now and now ~= place then
      place = now
      txn:set_var('sess.place', now)
      row = maps.routes:lookup(place .. host .. '\2' .. path .. '/\1')
    end
  end
  if row and settle(row, request) then return end
  -- Wider and wider hostnames, as far as the listener's own: its row for every path always decides.
  local behind = host:sub(1, 2) == '*.' and host:sub(3) or host
  while behind ~= '' do
    local dot = behind:find('.', 1, true)
    behind = dot and behind:sub(dot + 1) or ''
    local wider = behind ~= '' and '*.' .. behind or ''
    row = maps.routes:lookup(place .. wider .. '\2' .. path .. '/\1')
    if row and settle(row, request) then return end
  end
  answer(txn, '404', 'none')
end

core.register_action('route', { 'http-req' }, function(txn)
  local ok, err = pcall(search, txn)
  if ok then return end
  faults.run = faults.run + 1
  core.log(core.err, 'route: ' .. tostring(err))
  answer(txn, '500', 'none')
end)

-- Hostname of the listener that owns a name at an address and port, by the rows that are there for each listener.
local function owner(place, host)
  if maps.names:lookup(place .. host) then return host end
  local behind = host
  while behind ~= '' do
    local dot = behind:find('.', 1, true)
    behind = dot and behind:sub(dot + 1) or ''
    local wider = behind ~= '' and '*.' .. behind or ''
    if maps.names:lookup(place .. wider) then return wider end
  end
  return nil
end

core.register_action('misdirected', { 'http-req' }, function(txn)
  local place = txn:get_var('sess.place')
  local sni, host = txn:get_var('sess.sni') or '', txn:get_var('txn.host') or ''
  if owner(place, sni) ~= owner(place, host) then answer(txn, '421', 'none') end
end)

core.register_action('respond', { 'http-res' }, function(txn)
  local ok = pcall(function()
    for _, list in ipairs(txn:get_priv() or {}) do change_headers(txn.http, 'res', list) end
  end)
  if not ok then faults.run = faults.run + 1 end
end)

-- ---- the agent's commands: what users wrote comes as hexadecimal digits, so nothing in it can end a command ----

core.register_cli({ 'weft', 'set' }, 'weft set <map> <key> <value>', function(applet, _, _, name, key, value)
  core.set_map(file[name], unhex(key), unhex(value))
  local now = maps[name]:lookup(unhex(key))
  applet:send((now and hex(now) or '-') .. '\n')
end)
core.register_cli({ 'weft', 'del' }, 'weft del <map> <key>', function(applet, _, _, name, key)
  core.del_map(file[name], unhex(key))
  local now = maps[name]:lookup(unhex(key))
  applet:send((now and hex(now) or '-') .. '\n')
end)
core.register_cli({ 'weft', 'get' }, 'weft get <map> <key>...', function(applet, _, _, name, ...)
  for _, key in ipairs({ ... }) do
    local now = maps[name]:lookup(unhex(key))
    applet:send((now and hex(now) or '-') .. '\n')
  end
end)
core.register_cli({ 'weft', 'faults' }, 'weft faults', function(applet)
  applet:send(string.format('program %d\nrun %d\nregex %d\n', faults.program, faults.run, faults.regex))
end)
