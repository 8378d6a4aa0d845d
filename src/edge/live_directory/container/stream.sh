# Sends open files as frames (src/domain/frames). Nothing is written here, and the files are held open to the end.
# Arguments: digest tool, bytes of a chunk, byte of the first file to begin at, a list to be digested or nothing;
# then for each file its path and where what is wanted of it ends, or `all` for what it has when opened.
LC_ALL=C
export LC_ALL
tool=$1 chunk=$2 offset=$3 list=$4
shift 4
block=65536 held= plan= sent=0
exec 4>&1
# After a cut nobody reads any more, and nobody tells: what waits for a reader so long ends, and lets go of the files.
limit='timeout 300'
[ "$($limit printf x 2>/dev/null)" = x ] || limit=

say() {
  $limit printf '%s\n' "$*" >&4 || exit 1
}

refuse() {
  say "$*"
  # What ends together with its process may lose its last words.
  sleep 1
  exit 3
}

state() {
  stat -L -c '%d %i %s %Y' "$1"
}

# The first $1 bytes after byte $2 of $file, read by a descriptor of its own.
piece() {
  if [ $(($1 % block)) -eq 0 ]; then
    $limit dd if="$file" bs=$block skip=$(($2 / block)) count=$(($1 / block)) 2>/dev/null
  else
    dd if="$file" bs=$block skip=$(($2 / block)) count=$(($1 / block + 1)) 2>/dev/null | $limit head -c "$1"
  fi
}

# File number $1 at $2, up to byte $3 from byte $4 on. While a chunk is under way the next one is digested.
send() {
  file=$2 at=$4 length=$(($3 - $4))
  [ "$length" -gt 0 ] || return 0
  [ "$length" -le "$chunk" ] || length=$chunk
  sum=$(piece "$length" "$at" | "$tool")
  while :; do
    say "chunk $1 $at $length ${sum%% *}"
    sent=$((sent + 1)) next=$((at + length))
    ahead=$(($3 - next))
    [ "$ahead" -gt 0 ] || break
    [ "$ahead" -le "$chunk" ] || ahead=$chunk
    sum=$(
      piece "$length" "$at" >&4 &
      piece "$ahead" "$next" | "$tool"
      wait $!
    ) || exit 1
    at=$next length=$ahead
  done
  piece "$length" "$at" >&4 || exit 1
}

stream() {
  say "frames 1 $tool"
  if [ -n "$list" ]; then
    length=$(wc -c <"$list") && sum=$("$tool" <"$list") || refuse "gone $list"
    say "list $((length)) ${sum%% *}"
  fi
  number=0
  for one in $held; do
    now=$(state "${one%:*}")
    say "file $number $now"
    end=${one##*:}
    if [ "$end" = all ]; then
      end=${now% *}
      end=${end##* }
    fi
    plan="$plan ${one%:*}:$end" number=$((number + 1))
  done
  number=0
  for one in $plan; do
    send $number "${one%:*}" "${one##*:}" "$offset"
    offset=0 number=$((number + 1))
  done
  number=0
  for one in $plan; do
    say "last $number $(state "${one%:*}")"
    number=$((number + 1))
  done
  say "end $sent"
  sleep 1
}

# Opens the first path and then the others, each in a process of its own: dash knows no descriptor above 9.
hold() {
  if [ $# -eq 0 ]; then
    stream
    return
  fi
  [ ! -L "$1" ] || refuse "refused $1 is a link, which may lead anywhere"
  [ -e "$1" ] || refuse "gone $1"
  [ -f "$1" ] || refuse "refused $1 is no regular file"
  [ -r "$1" ] || refuse "refused $1 may not be read by $(id -u)"
  (
    read -r process rest </proc/self/stat
    held="$held /proc/$process/fd/3:$2"
    shift 2
    hold "$@"
  ) 3<"$1"
}

hold "$@"
