from __future__ import annotations

import contextlib
import os

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.errors import ManifestError
from sixfold.manifest import KINDS, Loaded, decode, load, loads, restore
from sixfold.manifest.shape import struct_type

TWO_POLICIES = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: one
spec:
  ingress:
  - from:
    - podSelector:
        matchLabels:
          app: web
    ports:
    - port: 80
      endPort: 79
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: two
spec:
  podSelectr: {}
  egress:
  - to:
    - ipBlock:
        cidr: 10.0.0.1/33
"""


def test_all_problems_are_told_at_once_in_file_order(told):
    assert told(TWO_POLICIES) == [
        "shop.yaml:13: spec.ingress[0].ports[0].endPort: 79 is below port 80; give 80 to 65535",
        "shop.yaml:20: spec.podSelectr: unknown field; did you mean podSelector?",
        'shop.yaml:24: spec.egress[0].to[0].ipBlock.cidr: "10.0.0.1/33": prefix length is not 0 to'
        " 32",
    ]


def test_problems_of_shape_and_of_meaning_are_told_by_line(told):
    text = (
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: Bad\n"
        "spec:\n  podSelectr: {}\n  ingress:\n  - ports:\n    - port: 0\n  egres: []\n"
    )
    assert [line.split(":")[1] for line in told(text)] == ["4", "6", "9", "10"]


def test_one_bad_object_means_that_none_is_taken(told):
    text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: ok}\n---\n" + TWO_POLICIES
    with pytest.raises(ManifestError):
        loads(text)


def test_objects_keep_their_place_and_their_text():
    text = "# shop\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"
    (loaded,) = loads(text, "shop.yaml").objects
    assert (loaded.source, loaded.line) == ("shop.yaml", 3)
    assert loaded.raw == {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "shop"},
    }


def test_foreign_kinds_are_named_and_never_an_error():
    text = (
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: c, namespace: n}\ndata: {80: yes}\n"
    )
    (ignored,) = loads(text).ignored
    assert (ignored.kind, ignored.namespace, ignored.name, ignored.line) == (
        "ServiceAccount",
        "n",
        "c",
        1,
    )


def test_an_object_without_a_namespace_gets_the_one_given(make):
    assert decode(make.pod()).key.namespace == "default"
    assert decode(make.pod(), namespace="shop").object.metadata.namespace == "shop"


def test_offline_the_same_object_twice_with_the_same_content_is_one():
    text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"
    assert len(loads(f"{text}---\n{text}", offline=True).objects) == 1
    with pytest.raises(ManifestError, match="keep one"):
        loads(f"{text}---\n{text}")


def test_offline_a_block_may_have_host_bits():
    text = (
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\n"
        "spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.1/8}}]}]}\n"
    )
    assert loads(text, offline=True).objects
    with pytest.raises(ManifestError, match=r"cidr: \"10.0.0.1/8\" has host bits set"):
        loads(text)


def test_a_pipe_in_a_directory_is_passed_over_and_a_dead_link_is_named(tmp_path):
    (tmp_path / "a.yaml").write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n")
    os.mkfifo(tmp_path / "b.yaml")
    assert len(load([tmp_path]).objects) == 1
    (tmp_path / "c.yaml").symlink_to("nowhere")
    with pytest.raises(ManifestError, match=r"c\.yaml: no such file"):
        load([tmp_path])


def test_two_objects_of_one_name_are_refused_with_both_places(tmp_path):
    text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"
    (tmp_path / "a.yaml").write_text(text)
    (tmp_path / "b.yaml").write_text("#\n" + text.replace("shop}", "shop, labels: {a: b}}"))
    with pytest.raises(ManifestError) as caught:
        load([tmp_path])
    assert str(caught.value) == (
        f"{tmp_path}/b.yaml:2: namespace shop is in {tmp_path}/a.yaml:1 too; keep one"
    )


def test_two_services_cannot_have_one_address(told):
    text = "---\n".join(
        f"{{apiVersion: v1, kind: Service, metadata: {{name: {name}}},"
        " spec: {clusterIP: 10.96.0.9, ports: [{port: 80}]}}\n"
        for name in ("s1", "s2")
    )
    assert told(text) == [
        "shop.yaml:3: spec.clusterIP: 10.96.0.9 is the address of service default/s1 too;"
        " give another or none"
    ]


def test_a_list_is_unpacked_with_the_lines_of_its_items(told):
    text = (
        "apiVersion: v1\nkind: List\nitems:\n"
        "- apiVersion: v1\n  kind: Namespace\n  metadata: {name: a}\n"
        "- apiVersion: v1\n  kind: Namespace\n  metadata: {name: B}\n"
    )
    assert told(text) == [
        "shop.yaml:9: metadata.name: \"B\" is not a DNS label; give a-z, 0-9 and '-' inside,"
        ' like "web-1"'
    ]
    assert [o.line for o in loads(text.replace("B", "b")).objects] == [4, 7]


def test_items_of_a_typed_list_need_no_kind():
    text = "{apiVersion: v1, kind: NamespaceList, items: [{metadata: {name: a}}]}"
    assert [str(loaded.key) for loaded in loads(text).objects] == ["namespace a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("just text", "shop.yaml:1: is no Kubernetes object;", id="scalar"),
        pytest.param("[1, 2]", "shop.yaml:1: is no Kubernetes object;", id="list"),
        pytest.param("kind: Pod", "shop.yaml:1: apiVersion: is required; add it", id="version"),
        pytest.param("apiVersion: v1", "shop.yaml:1: kind: is required; add it", id="kind"),
        pytest.param(
            "apiVersion: v1\nkind: Endpoints",
            "shop.yaml:1: Endpoints is derived here; give an EndpointSlice,",
            id="endpoints",
        ),
    ],
)
def test_what_is_no_object_is_refused(told, text, message):
    (line,) = told(text)
    assert line.startswith(message)


def test_an_empty_text_holds_nothing():
    assert loads("") == loads("---\n---\n# nothing\n")


def test_a_decoded_object_names_the_place_that_the_caller_gives(make):
    raw = make.pod({"hostNetwork": True})
    with pytest.raises(ManifestError, match=r"\Ashop\.yaml:7: spec\.hostNetwork: not supported"):
        decode(raw, "shop.yaml", 7)


def test_a_decoded_object_of_a_foreign_kind_is_refused():
    with pytest.raises(ManifestError, match="v1 ServiceAccount is not ours"):
        decode({"apiVersion": "v1", "kind": "ServiceAccount"})


def test_lines_are_those_of_the_anchor_when_an_alias_is_wrong(told):
    text = (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n"
        "  - name: a\n    ports: &p\n    - containerPort: 0\n"
        "  - name: b\n    ports: *p\n"
    )
    assert [line.split(":")[1] for line in told(text)] == ["8", "8"]


def test_a_big_manifest_is_read():
    one = TWO_POLICIES.partition("---")[0].replace("79", "90")
    text = "---\n".join(one.replace("one", f"p{n}") for n in range(6000))
    assert len(loads(text).objects) == 6000


def test_problems_without_end_are_cut(told):
    text = "---\n".join("apiVersion: v1\nkind: Pod\n" for _ in range(3000))
    lines = told(text)
    assert len(lines) == 1001
    assert lines[-1].endswith("1000 problems and more; the rest was not looked at")


wild = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


def shaped_like(struct):
    """Mappings that have field names of a struct, with wild or plausible values."""
    fields = {}
    for field in struct_type(struct).fields:
        inner = getattr(field.type, "cls", None)
        fields[field.encode_name] = wild if inner is None else wild | shaped_like(inner)
    return st.fixed_dictionaries({}, optional=fields)


@st.composite
def nearly_objects(draw):
    kind = draw(st.sampled_from([kind for kind in KINDS.values() if kind.struct]))
    raw = draw(shaped_like(kind.struct))
    return {**raw, "apiVersion": kind.api_version, "kind": kind.name}


@given(st.dictionaries(st.text(max_size=8), wild, max_size=4) | nearly_objects(), st.booleans())
def test_any_mapping_is_an_object_or_a_manifest_error(raw, offline):
    with contextlib.suppress(ManifestError):  # the only other answer
        assert isinstance(decode(raw, offline=offline, runnable=True), Loaded)


@pytest.mark.parametrize("index", range(9))
def test_a_valid_object_survives_a_round_trip(make, index):
    raw = make.all()[index]
    first = decode(raw, namespace="shop").object
    again = decode(msgspec.to_builtins(first)).object
    assert again == first
    assert decode(msgspec.json.decode(msgspec.json.encode(first))).object == first


def test_what_was_decoded_once_is_restored_the_same():
    raw = {
        **{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"}},
        "spec": {"selector": None, "ports": [{"port": 80, "targetPort": "http"}]},
    }
    assert restore(raw) == decode(raw).object
