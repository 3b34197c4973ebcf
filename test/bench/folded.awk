# Folds what `go tool pprof -traces` prints: one line for each stack, its root first,
# with its time in microseconds.
function micros(t) {
  if (t ~ /ns$/) return t / 1000
  if (t ~ /us$/) return t + 0
  if (t ~ /ms$/) return t * 1000
  if (t ~ /s$/) return t * 1e6
  return 0
}
function frame(s) {
  sub(/^ +/, "", s); sub(/ \(inline\)$/, "", s)
  gsub(/;/, ":", s); sub(/^[^([]*\//, "", s) # goka.x, not github.com/lovoo/goka.x
  return s
}
function flush() { if (stack != "") { printf "%s %d\n", stack, value; stack = "" } }
/^-----/ { flush(); began = 1; next }
!began { next }
stack == "" { value = micros($1); $1 = ""; stack = frame($0); next }
{ stack = frame($0) ";" stack }
END { flush() }
