# Adds up cargo's test results, in `passed failed` on one line. Of each test program's output the
# last result counts: a program may run itself for a test, and that result is part of the test.
function add() { passed += p; failed += f; p = f = 0 }
/^ +(Running|Doc-tests) / || /^--- / { add() }
/^test result:/ {
  for (i = 2; i <= NF; i++) {
    if ($i ~ /^passed/) p = $(i - 1)
    if ($i ~ /^failed/) f = $(i - 1)
  }
}
END { add(); print passed + 0, failed + 0 }
