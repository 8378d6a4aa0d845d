# Debian packages, downloaded and unpacked but never installed. Sourced by a script that has `fail`, a folder
# WORK and bash's nullglob.

# The archive that this machine's own apt uses.
mirror() {
  local codename address
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  address=$(apt-get indextargets --format '$(CREATED_BY) $(ORIGIN) $(CODENAME) $(REPO_URI)' |
    awk -v codename="$codename" '$1 == "Packages" && $2 == "Debian" && $3 == codename { print $4; exit }')
  [[ -n $address ]] || address=$(apt_sources "$codename")
  [[ -n $address ]] || fail "apt of this machine names no Debian archive for its own suite '$codename'"
  echo "$address"
}

# apt names an archive only once its lists are there; before the first `apt-get update` its sources are read as written.
apt_sources() {
  local files=(/etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources})
  cat "${files[@]}" 2>/dev/null | awk -v codename="$1" '
    $1 == "deb" { for (i = 2; i < NF; i++) if ($i ~ /:\/\// && $(i + 1) == codename) { print $i; exit } }
    $1 == "URIs:" { address = $2 }
    $1 == "Suites:" { for (i = 2; i <= NF; i++) if ($i == codename && address) { print address; exit } }
    NF == 0 { address = "" }'
}

# download FOLDER SUITES PACKAGES...: those packages of the first suite and all they depend on, from any of the suites
# (comma-separated). Lists, status and cache are private: the machine's own package state is neither read nor changed.
download() {
  local folder=$1 suites=$2 suite apt=$WORK/apt/$2; shift 2
  local -a options=(-qq -o "Dir::State=$apt/state" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt/cache"
    -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferencesparts=/dev/null
    -o APT::Sandbox::User=root -o APT::Install-Recommends=false -o Debug::NoLocking=true -o Acquire::Languages=none
    -o Acquire::Retries=3 -o APT::Update::Error-Mode=any -o "Dir::Cache::archives=$folder")
  ARCHIVE=${ARCHIVE:-$(mirror)}
  mkdir -p "$apt"/{state/lists/partial,cache} "$folder/partial"
  if [[ ! -e $apt/listed ]]; then
    : >"$apt/status"
    for suite in ${suites//,/ }; do
      echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $ARCHIVE $suite main"
    done >"$apt/sources.list"
    apt-get "${options[@]}" update >&2 || fail "Debian suite $suites cannot be reached at $ARCHIVE"
    touch "$apt/listed"
  fi
  apt-get "${options[@]}" install -y --download-only -t "${suites%%,*}" "$@" >&2 || fail "Debian suite $suites does not give: $*"
}

# unpack FOLDER DEBS...: leaves what only Debian's own set-up needs out
unpack() {
  local folder=$1 deb; shift
  mkdir -p "$folder"/usr/{bin,sbin,lib,lib64}
  ln -s usr/bin usr/sbin usr/lib usr/lib64 "$folder"
  for deb; do
    case ${deb##*/} in adduser_* | passwd_* | debconf_* | perl-base_* | dpkg_* | usr-is-merged_* | init-system-helpers_* | sysvinit-utils_*) continue ;; esac
    dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink --no-same-owner -C "$folder"
  done
}
