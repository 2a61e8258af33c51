#!/usr/bin/env bash
# Basecamp: bring a small real system up, show what is allowed and what is denied and by which
# rule, kill a backend, kill the agent, and say how to go on. `make demo` runs it; needs root.
set -euo pipefail
cd "$(dirname "$0")/../.."
export SIXFOLD_INSTANCE=${SIXFOLD_INSTANCE:-basecamp}
state=${SIXFOLD_STATE_DIR:-/var/lib/$SIXFOLD_INSTANCE}
sixfold=$PWD/.venv/bin/sixfold

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n== %s\n' "$*"; }
run() { printf '$ sixfold %s\n' "$*"; "$sixfold" "$@"; }
served() { "$sixfold" logs -n camp deploy/hiker --tail "${1:-200}" | grep -c '^meal' || true; }
finish() {
	code=$?
	if [ $code -ne 0 ]; then
		echo "demo: failed (exit $code); the agent's log:" >&2
		tail -n 20 "$state/agent.log" >&2 || true
	fi
	if [ $code -ne 0 ] || [ "${KEEP:-no}" = no ]; then
		"$sixfold" down --timeout 2 >/dev/null || true
	fi
}
if [ "$(id -u)" != 0 ]; then
	echo "demo: needs root: namespaces, BPF and cgroups are the kernel's; use sudo make demo" >&2
	exit 1
fi
trap finish EXIT
trap 'exit 130' INT TERM
"$sixfold" down --timeout 0 >/dev/null

say "1. Three namespaces, eight workloads, deny-all policies, mTLS between all of them: up"
run up -f examples/basecamp --detach --trace-calls
sleep 3
run get pods -A

say "2. Who talks, and which rule lets them"
run flows --verdict FORWARDED --to kitchen --last 2
run flows --verdict FORWARDED --to pantry --last 2
run flows --verdict FORWARDED --to store --last 2
run flows --verdict FORWARDED --to weather --last 1

say "3. The intruder: it is told of nobody, and where it has an address all the same it is stopped"
run flows --verdict DROPPED --from intruder --last 3
address=$("$sixfold" resolve store.supply | sed -n 's/^ \+//p' | sed -n 1p)
run exec -n outside deploy/intruder -- curl -sS --max-time 1 "http://$address:6000/" || true
run flows --verdict DROPPED --from intruder --port 6000 --last 1
if run explain outside/intruder store.supply:6000; then exit 1; fi
if "$sixfold" logs -n outside deploy/intruder | grep REACHED; then
	echo "demo: the intruder got through" >&2
	exit 1
fi

say "4. Requests: what may be asked for, a canary, and a retry that no hiker notices"
run explain camp/kitchen pantry.supply:80 --method DELETE --path /rice | tail -n 3 || true
run exec -n camp deploy/kitchen -- curl -sS -w "\n" -X DELETE http://pantry.supply/rice
run flows --verdict DROPPED --from kitchen --last 1
canary=$("$sixfold" logs -n camp deploy/hiker --tail 1000 | grep -c '^meal by the next kitchen' || true)
away=$("$sixfold" logs -n camp deploy/kitchen-next --tail 1000 | grep -c '^turned away' || true)
failed=$("$sixfold" logs -n camp deploy/hiker --tail 1000 | grep -c '^no pan' || true)
echo "meals of one hiker: $(served 1000), of the next kitchen: $canary; it turned $away away, and $failed hikers noticed"
[ "$canary" -gt 0 ] && [ "$away" -gt 0 ] && [ "$failed" = 0 ]

say "5. Zero trust: what every layer denies, and whether it is so of all who talk; both are exit codes"
run status | sed -n '/^LAYER/,/^plaintext/p'
run posture
run audit --probe

say "6. Kill a backend (kill -9 of its process): traffic moves on, the pod comes back"
backend=$("$sixfold" get pods -n supply -l app=pantry -o name | sed -n 1p)
echo "\$ kill -9 <the process of $backend>"
uid=$("$sixfold" get -n supply "$backend" -o json |
	.venv/bin/python -c 'import json, sys; print(json.load(sys.stdin)["metadata"]["uid"])')
cgroups=$(grep -m1 cgroup2 /proc/mounts | cut -d" " -f2)/$SIXFOLD_INSTANCE
kill -9 "$(head -n 1 "$cgroups/pods/$uid/pantry/cgroup.procs")"
before=$(served 1000)
sleep 3
after=$(served 1000)
run get endpointslices -n supply
run get pods -n supply
echo "meals served meanwhile: $((after - before))"
[ "$after" -gt "$before" ]

say "7. Kill the agent (kill -9): connections, policy, balancing and names go on"
agent=$("$sixfold" status -o json |
	.venv/bin/python -c 'import json, sys; print(json.load(sys.stdin)["agent"]["pid"])')
echo "\$ kill -9 $agent"
kill -9 "$agent"
log=$(ls -t "$state"/logs/camp_hiker-*/hiker/0.log | sed -n 1p)
before=$(grep -c meal "$log")
reached=$(cat "$state"/logs/outside_intruder-*/intruder/*.log | grep -c REACHED || true)
sleep 3
after=$(grep -c meal "$log")
echo "meals served to one hiker without an agent: $((after - before)); intruder got through: $reached times"
[ "$after" -gt "$before" ] && [ "$reached" = 0 ]
run up --detach
restarts=$("$sixfold" get pods -A -o json | grep -c '"restartCount": *[1-9]' || true)
echo "pods restarted by the return of the agent: $((restarts > 1 ? restarts - 1 : 0))"

say "8. Explore"
cat <<END
The demo tears itself down now. To keep it:   sudo KEEP=yes make demo
then, with    export SIXFOLD_INSTANCE=$SIXFOLD_INSTANCE; alias sixfold=$sixfold
  sixfold flows -f                                   every connection and drop, with its rule
  sixfold explain camp/hiker kitchen:80              why it works, a line per pattern
  sixfold explain outside/intruder store.supply:6000
  sixfold bpf policy list; sixfold bpf lb list       what the kernel really holds
  sixfold proxy config secrets                       certificates of the mesh, and until when
  sixfold exec -it -n camp deploy/hiker -- sh        be a hiker
  .venv/bin/python examples/basecamp/intrude.py      be the intruder, with root: every attack of the threat model
  sixfold harden camp --dry-run                      what would be the least that it needs
  sixfold down                                       leave nothing behind
END
