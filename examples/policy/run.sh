#!/usr/bin/env bash
# Network policy: what no rule allows is denied, and every verdict names its rule.
. "$(dirname "$0")/../begin.sh"
fetch=(curl -s -o /dev/null -w '%{http_code}\n' --max-time 1 http://web.shop/)

say "Before anything runs: what would these manifests allow?"
run explain -f . shop/client web:80
run explain -f . elsewhere/guest web.shop:80

say "Without a rule, nobody gets in: not even from the same namespace, and not even by name."
"$sixfold" up -f shop.yaml --detach >/dev/null
run exec -n shop client -- "${fetch[@]}"
run flows --verdict DROPPED --from shop/client --last 1

say "With a rule of each side, the client does; the guest has the same labels, but not the namespace: it is told of no web."
run apply -f allow.yaml --wait
run exec -n shop client -- "${fetch[@]}"
run exec -n elsewhere guest -- "${fetch[@]}"
run flows --verdict FORWARDED --from shop/client --to shop/web --last 1
run flows --verdict DROPPED --from elsewhere/guest --last 1

say "A rule that goes closes at once."
run delete networkpolicy -n shop web
run exec -n shop client -- "${fetch[@]}"
run explain shop/client web:80
