#!/usr/bin/env bash
# Discovery: names of services and pods, and how they follow what is ready.
. "$(dirname "$0")/../begin.sh"
"$sixfold" up -f names.yaml --posture kubernetes --detach >/dev/null

say "What a pod's resolv.conf says."
run exec -n shop client -- cat /etc/resolv.conf

say "A service by its short name; a pod of a headless service by its own; a port by its name."
run exec -n shop client -- getent ahostsv4 web
run exec -n shop client -- dig +short db-0.db.shop.svc.cluster.local A
run exec -n shop client -- sh -c 'dig +short _sql._tcp.db.shop.svc.cluster.local SRV | sort'

say "And back: whose address is that?"
run exec -n shop client -- sh -c 'dig +short -x $(dig +short db-1.db.shop.svc.cluster.local A)'

kept=$("$sixfold" exec -n shop client -- dig +short db-1.db.shop.svc.cluster.local A)
say "One pod less: its name is gone with it."
sed 's/replicas: 2/replicas: 1/' names.yaml | "$sixfold" apply --wait -f - >/dev/null
run exec -n shop client -- sh -c 'dig db-1.db.shop.svc.cluster.local A | grep -o "status: [A-Z]*"'
run exec -n shop client -- dig +short db.shop.svc.cluster.local A

say "A client that keeps its address all the same: caught, and led to who is there, for it asks for that."
sleep 7 # the TTL, 5 s, is over for certain
run exec -n shop client -- curl -s -o /dev/null -w '%{http_code}\n' "http://$kept:5432/"
run flows --stale retired
run audit --rule Z24
run metrics sixfold_redirected_dials

say "What a name means to a pod, and where it leads."
run explain -n shop client web
