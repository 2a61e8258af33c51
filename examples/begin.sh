# Sourced by every example's run.sh: an instance of the example's own, taken down at the end.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
sixfold=$here/../../.venv/bin/sixfold
export SIXFOLD_INSTANCE=${SIXFOLD_INSTANCE:-$(basename "$here")} NO_COLOR=1
cd "$here"

say() { printf '\n# %s\n' "$*"; }
# Show a command and run it. What fails is part of the story, so its exit code is printed.
run() {
	local argument shown="\$ sixfold"
	for argument in "$@"; do
		case $argument in *[!A-Za-z0-9_.,:/=@+-]*) argument="'$argument'" ;; esac
		shown+=" $argument"
	done
	printf '%s\n' "$shown"
	"$sixfold" "$@" 2>&1 || echo "exit code $?"
}

if [ "$(id -u)" != 0 ]; then
	echo "example: needs root: namespaces, BPF and cgroups are the kernel's" >&2
	exit 1
fi
trap '"$sixfold" down --timeout 1 >/dev/null' EXIT
"$sixfold" down --timeout 0 >/dev/null
