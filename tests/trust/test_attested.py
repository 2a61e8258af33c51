"""Which processes an identity is for."""

from sixfold.manifest import loads
from sixfold.model.clusterspiffeid import TEMPLATE
from sixfold.trust.attested import Traits, alternatives, lacking

WEB = Traits(1000, 100, "/usr/bin/web", "a" * 64)


def spiffe_id(name, selectors, more=""):
    (loaded,) = loads(
        f"""
apiVersion: spire.spiffe.io/v1alpha1
kind: ClusterSPIFFEID
metadata: {{name: {name}}}
spec:
  spiffeIDTemplate: "{TEMPLATE}"
  workloadSelectorTemplates: {selectors}
  {more}
"""
    ).objects
    return loaded.object


def test_all_selectors_of_one_object_must_hold():
    both = ("unix:uid:1000", "unix:path:/usr/bin/web")
    assert lacking([both], WEB) == ()
    assert lacking([(*both, "unix:gid:0")], WEB) == ("unix:gid:0",)
    assert lacking([("unix:uid:0",), both], WEB) == ()
    assert lacking([("unix:uid:0", "unix:gid:0"), ("unix:gid:0",)], WEB) == ("unix:gid:0",)


def test_a_pod_that_nothing_with_selectors_picks_is_attested_by_its_group_alone():
    objects = [
        spiffe_id("all", []),
        spiffe_id("web", ["unix:uid:1000"], "podSelector: {matchLabels: {app: web}}"),
        spiffe_id("shop", ["unix:uid:0"], "namespaceSelector: {matchLabels: {team: shop}}"),
    ]
    assert alternatives(objects, {}, {"app": "db"}) == ()
    assert alternatives(objects, {}, {"app": "web"}) == (("unix:uid:1000",),)
    both = (("unix:uid:1000",), ("unix:uid:0",))
    assert alternatives(objects, {"team": "shop"}, {"app": "web"}) == both
