-- A read-write load in the manner of sysbench's oltp_read_write, which tells the longest statement of every
-- stretch of 50 ms of each connection, and every error with its words, instead of ending with the first.
--
-- Lines printed: "B <connection> <end of the stretch, unix seconds> <longest statement, seconds>" and
-- "E <errno> <message>".
-- A statement that is under way longer than a stretch is told when it ends; its time says when it began.

local ffi = require("ffi")
ffi.cdef [[
typedef struct { long seconds; long nanoseconds; } homeworld_time;
int clock_gettime(int clock, homeworld_time *result);
int usleep(unsigned int microseconds);
]]

sysbench.cmdline.options = {
  table_size = {"Rows of sbtest1", 10000},
  tables = {"Always 1", 1},
  think_ms = {"Pause of a connection between two transactions, in ms", 0},
}

local STRETCH = 0.05
local moment = ffi.new("homeworld_time")

local function now()
  ffi.C.clock_gettime(0, moment)
  return tonumber(moment.seconds) + tonumber(moment.nanoseconds) / 1e9
end

local connection
local stretch, longest = 0, 0

function sysbench.hooks.sql_error_ignorable(error)
  io.write(string.format("E %d %s\n", error.sql_errno, error.sql_errmsg))
  if error.sql_errno >= 2000 and error.sql_errno < 3000 then
    -- The client library's own: the connection is gone. A server that does not come back ends the thread.
    connection:disconnect()
    connection = sysbench.sql.driver():connect()
  end
  ffi.C.usleep(10000)
  return true
end

function thread_init()
  connection = sysbench.sql.driver():connect()
  stretch = now()
end

function thread_done()
  connection:disconnect()
end

local function timed(sql)
  local begun = now()
  connection:query(sql)
  local ended = now()
  if ended - begun > longest then
    longest = ended - begun
  end
  if ended - stretch > STRETCH then
    io.write(string.format("B %d %.6f %.6f\n", sysbench.tid, ended, longest))
    stretch, longest = ended, 0
  end
end

local function row()
  return sysbench.rand.uniform(1, sysbench.opt.table_size)
end

local function range(template)
  local first = row()
  timed(string.format(template, first, first + 99))
end

function event()
  timed("BEGIN")
  for _ = 1, 10 do
    timed("SELECT c FROM sbtest1 WHERE id = " .. row())
  end
  range("SELECT c FROM sbtest1 WHERE id BETWEEN %d AND %d")
  range("SELECT SUM(k) FROM sbtest1 WHERE id BETWEEN %d AND %d")
  range("SELECT c FROM sbtest1 WHERE id BETWEEN %d AND %d ORDER BY c")
  -- Two rows in key order: an application that does otherwise makes its own deadlocks.
  local first, second = row(), row()
  timed("UPDATE sbtest1 SET k = k + 1 WHERE id = " .. math.min(first, second))
  timed(string.format("UPDATE sbtest1 SET c = '%s' WHERE id = %d",
    sysbench.rand.string("###########-###########-###########"), math.max(first, second)))
  timed("COMMIT")
  if sysbench.opt.think_ms > 0 then
    ffi.C.usleep(sysbench.opt.think_ms * 1000)
  end
end
