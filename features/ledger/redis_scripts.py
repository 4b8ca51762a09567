"""The scripts of the Redis ledger: what has to happen in one step runs in the server, in Lua, on one key.

Hashes are compared as the bytes that they are: Lua's numbers are doubles and hold no 64-bit integer. Times, counts and
windows are doubles on both sides. Positions in Lua's strings begin at 1. The layout of entries and limits is told in
`contacts`, that of budgets in `budgets`; the same takes in Python are `contact_history.counts.fits` and
`contact_history.updates.taken`, and tests compare the bytes.
"""

from __future__ import annotations

from hashlib import sha1


class Script:
    """A script's text and the digest that a server knows it by."""

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.digest = sha1(self.text, usedforsecurity=False).hexdigest().encode()  # Redis' name for it; guards nothing


TAKE = Script(r"""
-- KEYS history; ARGV numbers (now, hold, horizon, contacts at most, milliseconds until expiry), limits,
-- entries asked for, choices
local sub, unpack = string.sub, struct.unpack
local now, hold, horizon, room, expiry = unpack('<ddddd', ARGV[1])
local limits, asked, choices = ARGV[2], ARGV[3], ARGV[4]
local history = redis.call('GET', KEYS[1]) or ''
if #history % 48 ~= 0 then return redis.error_reply('DAMAGED a history of the ledger does not decode') end

-- One pass: what there is, by offer and by group; what has aged at its beginning; until when something is missing.
local times, decided, visible, channels, all, by_offer, by_group, there = {}, {}, {}, {}, {}, {}, {}, {}
local contacts, gap, first, leading, held = 0, -math.huge, 1, true, now - hold
local decision = sub(asked, 17, 24)
for at = 1, #history, 48 do
  local time, offer, decided_by, group, channel, what, kind, seen = unpack('<dc8c8c8c4c4xxxxBB', history, at)
  leading = leading and time <= now - horizon
  if leading then first = at + 48 end
  if kind <= 2 then
    contacts = contacts + 1
    times[contacts], channels[contacts], all[contacts] = time, channel, contacts
    decided[contacts], visible[contacts] = kind == 1, kind == 2 or seen ~= 0 or time > held
    local same = by_offer[offer]
    if same then same[#same + 1] = contacts else by_offer[offer] = {contacts} end
    same = by_group[group]
    if same then same[#same + 1] = contacts else by_group[group] = {contacts} end
    if decided_by == decision then there[offer] = true end
  elseif kind == 4 and what == '\0\0\0\0' and time > gap then
    gap = time
  end
end

local known, nothing = {}, {}
local function limit_at(position)
  local most, window, key, channel, scope, impressions = unpack('<ddc8c4BB', limits, position * 32 + 1)
  local limit = {most = most, since = now - window, scope = scope, tallies = {}}
  if key ~= '\0\0\0\0\0\0\0\0' then limit.key = key end
  if channel ~= '\0\0\0\0' then limit.channel = channel end
  if impressions == 1 then limit.counts = visible else limit.counts = decided end
  known[position] = limit
  return limit
end

local function tally(limit, key)
  local found, since, channel, counts, same = 0, limit.since, limit.channel, limit.counts, all
  if limit.scope == 1 then same = by_offer[key] or nothing
  elseif limit.scope == 2 then same = by_group[key] or nothing end
  for index = 1, #same do
    local at = same[index]
    if counts[at] and times[at] > since and (not channel or channels[at] == channel) then found = found + 1 end
  end
  limit.tallies[key] = found
  return found
end

local fell, fresh, accepted, refused, choice = {}, {}, {}, false, 1
for at = 1, #asked, 48 do
  local offer, group, channel = sub(asked, at + 8, at + 15), sub(asked, at + 24, at + 31), sub(asked, at + 32, at + 35)
  local chosen, verdict = (unpack('<H', choices, choice)), -1
  if there[offer] then
    verdict = -2
  else
    for index = 1, chosen do
      local position = (unpack('<H', choices, choice + 2 * index))
      local limit = known[position] or limit_at(position)
      local key = ''
      if limit.scope ~= 0 then key = limit.key or (limit.scope == 1 and offer or group) end
      local found = limit.tallies[key] or tally(limit, key)
      for index = 1, #accepted do
        local before = accepted[index]
        local same = limit.scope == 0 or before[limit.scope] == key
        if same and (not limit.channel or before[3] == limit.channel) then found = found + 1 end
      end
      if gap > limit.since or found >= limit.most then
        verdict, refused = position, true
        break
      end
    end
  end
  choice = choice + 2 + 2 * chosen
  fell[#fell + 1] = verdict
  if verdict == -1 then
    fresh[#fresh + 1] = sub(asked, at, at + 47)
    accepted[#accepted + 1] = {offer, group, channel}
    there[offer] = true
  end
end
if refused or #fresh == 0 then return fell end
if contacts + #fresh > room then return 0 end
if first == 1 then
  redis.call('APPEND', KEYS[1], table.concat(fresh))
else
  redis.call('SET', KEYS[1], sub(history, first) .. table.concat(fresh))
end
redis.call('PEXPIRE', KEYS[1], expiry)
return fell
""")
"""Returns for each contact -1 taken, -2 there already, or the position of the limit that fell; 0 when the history has
no room.
"""

REPLACE = Script(r"""
-- KEYS history; ARGV the history as it was read, as it shall be, milliseconds until expiry
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1
""")
"""Returns 1 when done, 0 when the history has changed since it was read."""

REPLACE_BOTH = Script(r"""
-- KEYS history, recent; ARGV for each of them: as it was read, as it shall be, milliseconds until expiry (0 never)
-- What stays as it is keeps its expiry.
for at = 1, 2 do
  if (redis.call('GET', KEYS[at]) or '') ~= ARGV[3 * at - 2] then return 0 end
end
for at = 1, 2 do
  local before, after, expiry = ARGV[3 * at - 2], ARGV[3 * at - 1], ARGV[3 * at]
  if after == before then
  elseif after == '' then
    redis.call('DEL', KEYS[at])
  elseif expiry == '0' then
    redis.call('SET', KEYS[at], after)
  else
    redis.call('SET', KEYS[at], after, 'PX', expiry)
  end
end
return 1
""")
"""As REPLACE, for both records of a unit: both or none."""

BUDGETS = Script(r"""
-- KEYS all budgets of a project; ARGV what to do, moment (now, day, hold), for each offer: key,
-- daily and lifetime budget
local sub, unpack, pack = string.sub, struct.unpack, struct.pack
local now, day, hold = unpack('<ddd', ARGV[2])
local minute, asked = math.floor(now / 60), ARGV[3]

local function read(offer)
  local data = redis.call('HGET', KEYS[1], offer)
  local record = {used = 0, days = {}, open = {}}
  if not data then return record end
  local n
  record.used, n = unpack('<dd', data)
  for at = 17, 16 * n + 16, 16 do
    local d, used = unpack('<dd', data, at)
    record.days[#record.days + 1] = {d, used}
  end
  for at = 16 * n + 17, #data, 24 do
    local m, d, count = unpack('<ddd', data, at)
    record.open[#record.open + 1] = {m, d, count}
  end
  return record
end

local function write(offer, record)
  local parts = {pack('<dd', record.used, #record.days)}
  for _, found in ipairs(record.days) do parts[#parts + 1] = pack('<dd', found[1], found[2]) end
  for _, found in ipairs(record.open) do parts[#parts + 1] = pack('<ddd', found[1], found[2], found[3]) end
  redis.call('HSET', KEYS[1], offer, table.concat(parts))
end

local function reserve(record)
  for _, found in ipairs(record.open) do
    if found[1] == minute and found[2] == day then
      found[3] = found[3] + 1
      return
    end
  end
  record.open[#record.open + 1] = {minute, day, 1}
end

local function give_back(record)
  for at, found in ipairs(record.open) do
    if found[1] == minute and found[2] == day then
      found[3] = found[3] - 1
      if found[3] <= 0 then table.remove(record.open, at) end
      return
    end
  end
end

local function confirm(record)
  record.used = record.used + 1
  local least = 1
  for at, found in ipairs(record.days) do
    if found[1] == day then
      found[2] = found[2] + 1
      return
    end
    if found[1] < record.days[least][1] then least = at end
  end
  record.days[#record.days + 1] = {day, 1}
  if #record.days > 3 then table.remove(record.days, day < record.days[least][1] and #record.days or least) end
end

local fell, records, refused = {}, {}, false
for at = 1, #asked, 24 do
  local offer, verdict = sub(asked, at, at + 7), 0
  local record = read(offer)
  if ARGV[1] == 'take' then
    local daily, lifetime = unpack('<dd', asked, at + 8)
    local kept, all, today, least = {}, record.used, 0, math.huge
    for _, found in ipairs(record.open) do
      if (found[1] + 1) * 60 + hold > now then
        kept[#kept + 1] = found
        all = all + found[3]
        if found[2] == day then today = today + found[3] end
      end
    end
    record.open = kept
    for _, found in ipairs(record.days) do
      least = math.min(least, found[1])
      if found[1] == day then today = today + found[2] end
    end
    if all >= lifetime then
      verdict = 2
    elseif daily < math.huge and (today >= daily or (#record.days >= 3 and day < least)) then
      verdict = 1
    end
    reserve(record)
  else
    give_back(record)
    if ARGV[1] == 'confirm' then confirm(record) end
  end
  refused = refused or verdict ~= 0
  fell[#fell + 1], records[#records + 1] = verdict, {offer, record}
end
if not refused then
  for _, found in ipairs(records) do write(found[1], found[2]) end
end
return fell
""")
"""Returns for each offer 0 done, 1 the daily or 2 the lifetime budget fell."""
