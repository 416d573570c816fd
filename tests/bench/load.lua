-- What wrk asks for. Arguments: the kind of request, the token, and the number of users.

local browser = {
  ["Host"] = "hub.example.org",
  ["Connection"] = "keep-alive",
  ["sec-ch-ua"] = '"Chromium";v="130", "Not?A_Brand";v="99"',
  ["sec-ch-ua-mobile"] = "?0",
  ["sec-ch-ua-platform"] = '"Linux"',
  ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
  ["Accept"] = "application/json, text/javascript, */*; q=0.01",
  ["X-XSRFToken"] = "2|a1b2c3d4|0123456789abcdef0123456789abcdef|1700000000",
  ["Sec-Fetch-Site"] = "same-origin",
  ["Sec-Fetch-Mode"] = "cors",
  ["Sec-Fetch-Dest"] = "empty",
  ["Referer"] = "http://hub.example.org/user/u500/lab/tree/foo.ipynb",
  ["Accept-Encoding"] = "gzip, deflate, br, zstd",
  ["Accept-Language"] = "en-GB,en;q=0.9,fr;q=0.8",
  ["Cookie"] = '_xsrf=2|a1b2c3d4|0123456789abcdef0123456789abcdef|1700000000; jupyterhub-user-u500="2|1:0|10:1700000000|18:jupyterhub-user-u500|44:' .. string.rep("x", 200) .. '"',
}

local kind, users
local number, began = 0, os.time()

-- Instants that never repeat, a millisecond apart: every one is news.
local function instant()
  number = number + 1
  return os.date("!%Y-%m-%dT%H:%M:%S", began + math.floor(number / 1000))
    .. string.format(".%03dZ", number % 1000)
end

local make = {
  user = function()
    return wrk.format("GET", "/hub/api/users/u" .. math.random(0, users - 1))
  end,
  users = function()
    return wrk.format("GET", "/hub/api/users?limit=200")
  end,
  activity = function()
    local at = instant()
    local body = string.format(
      '{"last_activity": "%s", "servers": {"": {"last_activity": "%s"}}}', at, at)
    return wrk.format("POST", "/hub/api/users/u" .. number % users .. "/activity", nil, body)
  end,
  browser = function()
    return wrk.format("GET", "/user/u" .. math.random(0, users - 1) .. "/api/contents/foo.ipynb?content=1")
  end,
}

function init(args)
  kind, users = args[1], tonumber(args[3])
  if kind == "browser" then
    wrk.headers = browser
  else
    wrk.headers["Authorization"] = "token " .. args[2]
    wrk.headers["Content-Type"] = "application/json"
  end
  request = make[kind]
end

function done(summary, _latency, _requests)
  local errors = summary.errors
  print(string.format("RESULT %d %d %d", summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
