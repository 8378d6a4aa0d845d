# Sends open files as frames (src/domain/frames). Nothing is written here, and the files are held open to the end.
# Arguments: digest tool, bytes of a chunk, byte of the first file to begin at, a list to be digested or nothing;
# then for each file its path and where what is wanted of it ends, or `all` for what it has when opened.
LC_ALL=C
export LC_ALL
tool=$1 chunk=$2 offset=$3 list=$4
shift 4
block=65536 held= plan= sent=0
exec 5<&0 </dev/null
# Whoever reads what we send holds our input open, and sends a line now and then, which is answered so that no proxy
# takes us for idle. The end of it is the end of our reader: what waits for one would wait for ever. (No `timeout`: that of
# busybox leaves a process behind each time, for which nobody waits in a container.)
watch() {
  while read -r line <&5; do echo . >&2; done
  trap '' TERM
  read -r self line </proc/self/stat
  passes=0
  while [ $passes -lt 60 ] && give_up; do
    sleep 1
    passes=$((passes + 1))
  done
}

# Ends those processes of ours that have no child. Who waits for them ends by itself, and nobody is left that nobody
# waits for. Fails when all have ended. No process of another command shares our session.
give_up() {
  all='' parents=' '
  for stat in /proc/[0-9]*/stat; do
    read -r line 2>/dev/null <"$stat" || continue
    one=${line%% *}
    # Of what follows the name: state, parent, group, session.
    set -- ${line##*) }
    [ "$4" = $$ ] || continue
    parents="$parents$2 "
    [ "$one" = $$ ] || [ "$one" = "$self" ] || all="$all $one"
  done
  for one in $all; do
    case $parents in *" $one "*) ;; *) kill -9 "$one" 2>/dev/null ;; esac
  done
  [ -n "$all" ]
}

say() {
  printf '%s\n' "$*" >&4 || exit 1
}

refuse() {
  say "$*"
  sleep $stay
  exit 3
}

state() {
  stat -L -c '%d %i %s %Y' "$1"
}

# The first $1 bytes after byte $2 of $file, read by a descriptor of its own.
piece() {
  if [ $(($1 % block)) -eq 0 ]; then
    dd if="$file" bs=$block skip=$(($2 / block)) count=$(($1 / block)) 2>/dev/null
  else
    dd if="$file" bs=$block skip=$(($2 / block)) count=$(($1 / block + 1)) 2>/dev/null | head -c "$1"
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
  sleep $stay
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

# What is on its way when its process ends may be lost. Where our reader can tell that it has all, it ends us.
stay=1 watcher=
if read -r line <&5; then
  stay=60
  watch >/dev/null &
  watcher=$!
fi
exec 4>&1
(hold "$@")
ended=$?
if [ -n "$watcher" ]; then
  kill $watcher 2>/dev/null
  wait $watcher 2>/dev/null
fi
exit $ended
