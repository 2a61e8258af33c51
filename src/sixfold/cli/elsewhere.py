"""What users of kubectl type first and Sixfold does not have: where it is instead."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_APPLY = "change the manifest, then sixfold apply -f FILE"
_STATUS = "there is one host: sixfold status"

VERBS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("edit", "patch", "replace", "set", "label", "annotate"), _APPLY),
        **dict.fromkeys(("cluster-info", "cordon", "drain", "uncordon", "taint"), _STATUS),
        "create": "sixfold apply -f FILE creates what is not there",
        "scale": "change spec.replicas in the manifest, then sixfold apply -f FILE",
        "autoscale": "change spec.replicas in the manifest, then sixfold apply -f FILE",
        "rollout": "sixfold apply -f FILE --wait returns when a roll-out is done",
        "wait": "sixfold apply -f FILE --wait returns when all of it is ready",
        "expose": "write a Service, then sixfold apply -f FILE",
        "port-forward": "addresses of pods: sixfold get pods -o wide; a policy must let host in",
        "attach": "sixfold logs -f POD, or sixfold exec -it POD -- COMMAND",
        "debug": "sixfold exec -it POD -- COMMAND: pods have all programs of the host",
        "cp": "pods have the host's files: cp",
        "top": "not measured here; sixfold status counts, systemd-cgtop measures",
        "events": "sixfold describe KIND NAME and sixfold flows say what happened",
        "auth": "whoever may use the agent's socket may do everything",
        "config": "--instance and -n say where; there are no contexts",
        "api-resources": "sixfold get --help lists the kinds",
        "observe": "sixfold flows shows connections and drops",
    }
)

_FILES = "pods have the host's files and no volumes"
KINDS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(
            ("events", "event", "ev"), "sixfold describe and sixfold flows say what happened"
        ),
        **dict.fromkeys(("nodes", "node", "no"), _STATUS),
        **dict.fromkeys(("persistentvolumes", "pv", "persistentvolumeclaims", "pvc"), _FILES),
        **dict.fromkeys(
            ("serviceaccounts", "serviceaccount", "sa"),
            "named by spec.serviceAccountName of a pod, not objects here",
        ),
        **dict.fromkeys(("ingresses", "ingress", "ing"), "write a Gateway and an HTTPRoute"),
        **dict.fromkeys(("cronjobs", "cronjob", "cj"), "write a Job; cron applies it"),
    }
)
