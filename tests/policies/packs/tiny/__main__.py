"""A pack of the gate's tests: a rule for every kind of answer that a pack can give."""

from pulumi_policy import (
    EnforcementLevel,
    PolicyConfigSchema,
    PolicyPack,
    ResourceValidationPolicy,
    Severity,
    StackValidationPolicy,
)


def _replicas(args, report):
    if args.resource_type != "kubernetes:apps/v1:Deployment":
        args.not_applicable("no Deployment")
    limit = (args.get_config() or {}).get("max", 3)
    spec = args.props["spec"]
    if "replicas" in spec and spec["replicas"] > limit:
        report(f"spec.replicas is {spec['replicas']:g}; allowed: at most {limit:g}")


def _protected(args, report):
    if args.resource_type == "aws:s3/bucket:Bucket" and not args.opts.protect:
        report("the bucket is not protected")


def _one_namespace(args, report):
    # Sorted, since a program declares its resources in any order.
    namespaces = sorted(
        resource.urn
        for resource in args.resources
        if resource.resource_type == "kubernetes:core/v1:Namespace"
    )
    for urn in namespaces[1:]:
        report("a second Namespace", urn)
    if not namespaces:
        report("no Namespace")


PolicyPack(
    name="tiny",
    enforcement_level=EnforcementLevel.MANDATORY,
    policies=[
        ResourceValidationPolicy(
            "limit-replicas",
            "Deployments stay small.",
            _replicas,
            config_schema=PolicyConfigSchema({"max": {"type": "integer", "default": 3}}),
            severity=Severity.HIGH,
            remediation_steps="Lower spec.replicas.",
            url="https://example.com/limit-replicas",
        ),
        ResourceValidationPolicy(
            "protect-buckets",
            "Buckets are protected.",
            _protected,
            enforcement_level=EnforcementLevel.ADVISORY,
        ),
        StackValidationPolicy("one-namespace", "There is one Namespace.", _one_namespace),
    ],
)
