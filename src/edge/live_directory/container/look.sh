# Says what lies in a data directory and what is left beside it. Changes nothing.
# Arguments: the directory, or nothing for the one that process $2 works in; its RDB's name, or nothing for any;
# where it is looked for when it is found by neither.
LC_ALL=C
export LC_ALL
name=$3
cd "${1:-/proc/$2/cwd}" || { [ -z "$1" ] && [ -n "$4" ] && cd "$4"; } || exit 3
echo "look 1"
echo "directory $(pwd -P)"
# Whatever sends frames is tried: tools of this name may do less here.
case $(printf abcdefg | dd bs=2 skip=1 count=2 2>/dev/null | head -c 3) in
  cde) case $(stat -L -c '%d %i %s %Y' /proc/self/stat) in
    *' '*' '*' '*)
      case $(printf abc | sha256sum) in ba7816bf8f01cfea*) echo "tool sha256sum" ;; esac
      case $(printf abc | cksum) in '1219131554 3'*) echo "tool cksum" ;; esac ;;
  esac ;;
esac
df -P -k . | while read -r line; do echo "disk $line"; done
for file in /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; do
  [ -r $file ] && echo "memory-limit $(cat $file)"
done
for file in /sys/fs/cgroup/memory.stat /sys/fs/cgroup/memory/memory.stat; do
  [ -r $file ] && while read -r key value; do
    case $key in anon | total_rss) echo "memory-used $value" ;; esac
  done <$file
done
while read -r key value rest; do
  case $key in MemTotal: | MemAvailable:) echo "memory-${key%:} $value" ;; esac
done </proc/meminfo
dump() {
  # A file that a child still writes is none.
  case $1 in temp-*) return ;; esac
  [ -f "./$1" ] && [ ! -L "./$1" ] || return
  case $(head -c 6 "./$1") in
    REDIS0 | VALKEY) echo "dump $(stat -L -c '%d %i %s %Y' "./$1") $1" ;;
  esac
}
if [ -n "$name" ]; then
  dump "$name"
else
  for file in *; do dump "$file"; done
fi
# The lists of append-only files; one that is being written has a name of its own until it is renamed.
for file in */*.manifest; do
  case ${file#*/} in temp*) continue ;; esac
  [ -f "./$file" ] && [ ! -L "./$file" ] && [ ! -L "./${file%/*}" ] && echo "list $file"
done
echo done
sleep 1
