"""Values that every other package speaks: no behaviour beyond their own, no I/O, no clock.

Kubernetes objects are ``msgspec`` structs that refuse unknown fields (``meta``, ``workload``,
``service``, ``policy``); what Sixfold derives from them are frozen dataclasses (``identity``,
``endpoint``, ``datapath``, ``flow``, ``world``).
"""
