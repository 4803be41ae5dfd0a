#!/usr/bin/env bash
# Fuzzes all targets for so many minutes in all, split evenly, and reports on each:
#   scripts/fuzz.sh MINUTES [WORD]
# Building comes on top. Memory: its peak, and what it has grown by since all of the corpus was read.
# With WORD, only targets with the word in their name. Fails if one crashed, hung or outgrew its memory;
# what did it is in target/fuzz/found/<target>/. FUZZ_KEEP=1 adds to the corpus in the repository what
# covers more than it does, as little as possible.
set -euo pipefail

cd "$(dirname "$0")/.."
minutes=$1 word=${2-}
# Of one run. The program alone has some 30 MiB.
memory_mb=128 input_bytes=16384 seconds_per_input=10
# Of what is kept.
kept_bytes=1024 kept_files=40

if ! rustup run nightly true 2>/dev/null; then
  echo "fuzzing needs a nightly compiler: rustup toolchain install nightly --profile minimal" >&2
  exit 1
fi
cargo_fuzz=$(scripts/install-cargo-fuzz.sh)
# No sanitizer: what is fuzzed has no unsafe code, so this is faster, and memory is the driver's own.
building=$SECONDS
rustup run nightly "$cargo_fuzz" fuzz build --sanitizer none --target-dir target/fuzz >&2
building=$((SECONDS - building))
host=$(rustc -vV | sed -n 's/^host: //p')
program=$PWD/target/fuzz/$host/release/any
dictionary=$PWD/fuzz/dictionary

targets=()
for dir in fuzz/corpus/*"$word"*/; do
  [[ -d $dir ]] && targets+=("$(basename "$dir")")
done
((${#targets[@]} > 0)) || { echo "no target has '$word' in its name" >&2; exit 1; }
seconds=$(awk -v m="$minutes" -v n="${#targets[@]}" 'BEGIN { s = int(m * 60 / n); print s < 1 ? 1 : s }')
echo "built in $building s; ${#targets[@]} targets, $seconds s each"

stat() { awk -v key="stat::$1:" '$1 == key { print $2 }' "$log"; }
# Adds what covers more than the corpus in the repository, in few and small files, and as text.
keep() {
  local kept=$work/kept known
  rm -rf "$kept" && mkdir "$kept"
  "$program" -set_cover_merge=1 -use_counters=0 -max_len=$kept_bytes "$kept" "$corpus" "$new" \
    >"$work/merge.log" 2>&1
  known=$(sha1sum "$corpus"/*)
  # libFuzzer names a file by the SHA-1 of what is in it.
  for file in $(ls -Sr "$kept"); do
    (($(find "$corpus" -type f | wc -l) < kept_files)) || break
    iconv -f UTF-8 -t UTF-8 "$kept/$file" >/dev/null 2>&1 || continue
    grep -q "^$file" <<<"$known" || cp "$kept/$file" "$corpus/"
  done
}

status=0
printf '%-16s %12s %9s %9s %12s %10s %12s\n' \
  target executions coverage features 'peak memory' growth 'new entries'
for target in "${targets[@]}"; do
  export FUZZ_TARGET=$target
  corpus=$PWD/fuzz/corpus/$target work=$PWD/target/fuzz/work/$target found=$PWD/target/fuzz/found/$target
  new=$work/new log=$work/log
  mkdir -p "$new" "$found"
  result=
  "$program" -max_total_time="$seconds" -rss_limit_mb=$memory_mb -max_len=$input_bytes \
    -timeout=$seconds_per_input -dict="$dictionary" -artifact_prefix="$found/" -print_final_stats=1 \
    -verbosity=1 "$new" "$corpus" >"$log" 2>&1 </dev/null || { result="  FAILED: see $log"; status=1; }
  # `#12 DONE cov: 3 ft: 4 corp: …`
  read -r coverage features < <(sed -n 's/.* cov: \([0-9]*\) ft: \([0-9]*\) .*/\1 \2/p' "$log" | tail -n 1) || true
  # `#12 INITED cov: … rss: 30Mb`
  first=$(sed -n 's/^#[0-9]*\sINITED .* rss: \([0-9]*\)Mb.*/\1/p' "$log") peak=$(stat peak_rss_mb)
  printf '%-16s %12s %9s %9s %8s MiB %6s MiB %12s%s\n' "$target" "$(stat number_of_executed_units)" \
    "${coverage-}" "${features-}" "$peak" "$((${peak:-0} - ${first:-0}))" "$(stat new_units_added)" "$result"
  [[ ${FUZZ_KEEP-} != 1 || $result ]] || keep
done
exit "$status"
