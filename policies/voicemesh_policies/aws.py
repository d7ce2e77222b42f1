"""Storage, registry, identity, cluster and nodes in AWS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Final

from voicemesh_policies.gpu import NODE_GROUP
from voicemesh_policies.objects import Resource, Stack, judged
from voicemesh_policies.rule import Concern, Config, Severity
from voicemesh_policies.view import Finding, UnknownError, View

CONCERN: Final = Concern("aws")

BUCKET: Final = "aws:s3/bucket:Bucket"
CLUSTER: Final = "aws:eks/cluster:Cluster"
KEY: Final = "aws:kms/key:Key"
LAUNCH_TEMPLATE: Final = "aws:ec2/launchTemplate:LaunchTemplate"
REPOSITORY: Final = "aws:ecr/repository:Repository"
SUBNET: Final = "aws:ec2/subnet:Subnet"
_LIFECYCLE: Final = "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration"
_ENCRYPTION: Final = (
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
)
_PUBLIC_ACCESS: Final = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
_BUCKET_POLICY: Final = "aws:s3/bucketPolicy:BucketPolicy"
_IMAGE_LIFECYCLE: Final = "aws:ecr/lifecyclePolicy:LifecyclePolicy"
_IAM_POLICIES: Final = frozenset(
    {"aws:iam/rolePolicy:RolePolicy", "aws:iam/policy:Policy", "aws:iam/userPolicy:UserPolicy"}
    | {"aws:iam/groupPolicy:GroupPolicy"}
)
STATEFUL: Final = frozenset(
    {BUCKET, CLUSTER, KEY, REPOSITORY}
    | {"aws:cloudwatch/logGroup:LogGroup", "aws:ec2/capacityReservation:CapacityReservation"}
    | {"aws:ec2/vpc:Vpc", "PersistentVolumeClaim"}
)
LOG_TYPES: Final = ("api", "audit", "authenticator", "controllerManager", "scheduler")

_CIS: Final = "CIS AWS Foundations Benchmark"
_EKS: Final = "EKS Best Practices, security"
_S3_LINK: Final = (
    "https://docs.aws.amazon.com/AmazonS3/latest/userguide/security-best-practices.html"
)
_EKS_LINK: Final = "https://docs.aws.amazon.com/eks/latest/best-practices/security.html"
_IAM_LINK: Final = "https://docs.aws.amazon.com/IAM/latest/UserGuide/best-practices.html"


def _parts(stack: Stack, bucket: Resource, type_: str) -> list[Resource]:
    """What a stack declares of a type for a bucket."""
    return [it for it in stack.of(type_) if bucket.urn in it.dependencies or _same(it, bucket)]


def _same(part: Resource, bucket: Resource) -> bool:
    try:
        name = bucket.props["bucket"].text
        return bool(name) and part.props["bucket"].text == name
    except UnknownError:
        # A name that is not known yet; the dependency tells.
        return False


def _each_bucket(
    stack: Stack, type_: str, judge: Callable[[Resource], Iterator[Finding]], missing: str
) -> Iterator[Finding]:
    """What is wrong with a part that every bucket has to have."""
    for bucket in stack.of(BUCKET):
        parts = _parts(stack, bucket, type_)
        yield from judged(parts, judge)
        if not parts:
            yield bucket.found(Finding(type_.rpartition(":")[2], "missing", missing))


@CONCERN.stack_rule(
    kinds={BUCKET, _ENCRYPTION},
    severity=Severity.HIGH,
    what="Buckets encrypt with a key of KMS.",
    why="Reference voices are biometric data; only with a key of ours can access be cut off in one "
    "place, and each use be seen.",
    fix="declare a BucketServerSideEncryptionConfiguration with sseAlgorithm: aws:kms",
    framework="AWS Foundational Security Best Practices, S3.17",
    link=_S3_LINK,
)
def buckets_encrypt_with_a_key(stack: Stack, config: Config) -> Iterator[Finding]:
    del config

    def judge(part: Resource) -> Iterator[Finding]:
        rules = part.props["rules"]
        algorithms = [
            it["applyServerSideEncryptionByDefault"]["sseAlgorithm"] for it in rules.items
        ]
        for algorithm in algorithms or [rules]:
            if not algorithm.text.startswith("aws:kms"):
                yield algorithm.wrong("is not encryption with a key of KMS")

    yield from _each_bucket(stack, _ENCRYPTION, judge, "leaves the bucket to S3's own keys")


@CONCERN.stack_rule(
    kinds={BUCKET, _BUCKET_POLICY},
    severity=Severity.HIGH,
    what="Buckets refuse requests without TLS.",
    why="S3 also answers plain HTTP, and signed requests can be read on their way then.",
    fix="declare a BucketPolicy that denies s3:* to everybody where aws:SecureTransport is false",
    framework=_CIS,
    link=_S3_LINK,
)
def buckets_refuse_plain_http(stack: Stack, config: Config) -> Iterator[Finding]:
    del config

    def judge(part: Resource) -> Iterator[Finding]:
        policy = part.props["policy"]
        if not any(map(_denies_plain_http, policy.document["Statement"].items)):
            yield policy.wrong("lets requests without TLS in")

    yield from _each_bucket(stack, _BUCKET_POLICY, judge, "lets requests without TLS in")


def _denies_plain_http(statement: View) -> bool:
    secure = [
        it.flag
        for _, operands in statement["Condition"].entries
        for key, it in operands.entries
        if key.lower() == "aws:securetransport"
    ]
    principal = statement["Principal"]
    everybody = "*" in (principal.text, *principal["AWS"].texts)
    everything = bool({"s3:*", "*"} & set(statement["Action"].texts))
    return statement["Effect"].text == "Deny" and everybody and everything and secure == [False]


@CONCERN.stack_rule(
    kinds={BUCKET, _PUBLIC_ACCESS},
    severity=Severity.CRITICAL,
    what="Buckets block public access, in all four ways.",
    why="One policy that is too wide would publish every voice.",
    fix="declare a BucketPublicAccessBlock with all four settings true",
    framework=_CIS,
    link=_S3_LINK,
)
def buckets_are_private(stack: Stack, config: Config) -> Iterator[Finding]:
    del config
    ways = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")

    def judge(part: Resource) -> Iterator[Finding]:
        for setting in (part.props[way] for way in ways):
            if not setting.flag:
                yield setting.wrong("must be true")

    yield from _each_bucket(stack, _PUBLIC_ACCESS, judge, "lets the bucket be made public")


@CONCERN.rule(
    kinds={_LIFECYCLE},
    severity=Severity.MEDIUM,
    what="What expires takes its old versions with it.",
    why="In a bucket with versions an expired object stays, as an old version: paid for, and "
    "readable long after the day that customers were told.",
    fix="add noncurrentVersionExpiration beside expiration.days",
    framework="GDPR, article 5",
    link="https://docs.aws.amazon.com/AmazonS3/latest/userguide/lifecycle-configuration-examples.html",
)
def old_versions_expire_too(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    for rule in resource.props["rules"].items:
        old = rule["noncurrentVersionExpiration"]
        expires = rule["status"].text == "Enabled" and rule["expiration"]["days"].number
        if expires and not old["noncurrentDays"].number:
            yield old.wrong("leaves old versions for ever")


@CONCERN.rule(
    kinds={_LIFECYCLE},
    severity=Severity.LOW,
    what="Uploads that nobody finishes are removed.",
    why="Their parts are stored and paid for, and no listing shows them.",
    fix="add a rule for the whole bucket with abortIncompleteMultipartUpload",
    framework="AWS Well-Architected, cost",
    link="https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpu-abort-incomplete-mpu-lifecycle-config.html",
)
def unfinished_uploads_are_removed(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    rules = resource.props["rules"]
    aborts = (it["abortIncompleteMultipartUpload"]["daysAfterInitiation"] for it in rules.items)
    if not any(days.number for days in aborts):
        problem = "removes no parts of unfinished uploads"
        yield Finding(rules.path, f"a list of {len(rules.items)}", problem)


@CONCERN.rule(
    kinds={_IMAGE_LIFECYCLE},
    severity=Severity.HIGH,
    what="The registry never expires an image that is live or could be rolled back to.",
    why="An age limit alone removes the image that serves, on its birthday; a rollback then finds "
    "nothing. ECR applies rules by priority, and an image that a rule matches is no later rule's.",
    fix="put rules for live-* and rollback-* first, with a count that is never reached, and keep "
    "all else for the retention",
    framework="Voice serving",
    link="https://docs.aws.amazon.com/AmazonECR/latest/userguide/LifecyclePolicies.html",
    config={
        "keptTags": {
            "type": "array",
            "items": {"type": "string"},
            "default": ["live-*", "rollback-*"],
            "description": "Tags, or their beginnings, of images that never expire",
        },
        "keptDays": {
            "type": "number",
            "minimum": 1,
            "default": 14,
            "description": "Days for which any image is kept",
        },
    },
)
def rollback_images_stay(resource: Resource, config: Config) -> Iterator[Finding]:
    policy = resource.props["policy"]
    rules = policy.document["rules"].items
    open_tags = set(config.texts("keptTags"))
    for rule in sorted(rules, key=lambda it: it["rulePriority"].number or 0.0):
        selection = rule["selection"]
        count = selection["countNumber"].number or 0.0
        if shielded := _shielded(selection, open_tags):
            open_tags -= shielded
            continue
        if selection["tagStatus"].text != "untagged" and open_tags:
            yield rule.wrong(f"expires images tagged {', '.join(sorted(open_tags))}")
            return
        since_push = selection["countType"].text == "sinceImagePushed"
        if since_push and count < config.number("keptDays"):
            yield selection["countNumber"].wrong(f"is less than {config.number('keptDays'):g} days")
        if selection["countType"].text == "imageCountMoreThan" and count < _MOST_IMAGES:
            yield selection["countNumber"].wrong("expires images of any age once there are more")
    if not rules:
        yield policy.wrong("is no policy that says what stays")


_MOST_IMAGES: Final = 20_000
"""More than a repository holds unless AWS raises the quota:
https://docs.aws.amazon.com/AmazonECR/latest/userguide/service-quotas.html"""


def _shielded(selection: View, tags: set[str]) -> set[str]:
    """The tags that a rule takes, and that it never expires in effect."""
    if selection["tagStatus"].text != "tagged" or selection["countType"].text != (
        "imageCountMoreThan"
    ):
        return set()
    patterns = [*selection["tagPatternList"].texts]
    patterns += [f"{prefix}*" for prefix in selection["tagPrefixList"].texts]
    if (selection["countNumber"].number or 0.0) < _MOST_IMAGES or len(patterns) != 1:
        return set()
    return {tag for tag in tags if fnmatchcase(tag, patterns[0])}


@CONCERN.rule(
    kinds={REPOSITORY},
    severity=Severity.MEDIUM,
    what="Tags of versions do not move.",
    why="Who pushes the same tag again changes what the next node starts, without a release.",
    fix="set imageTagMutability: IMMUTABLE, or IMMUTABLE_WITH_EXCLUSION for moving tags",
    framework="NIST SP 800-190",
    link="https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-tag-mutability.html",
)
def image_tags_do_not_move(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    mutability = resource.props["imageTagMutability"]
    filters = resource.props["imageTagMutabilityExclusionFilters"]
    if not mutability.text.startswith("IMMUTABLE"):
        yield mutability.wrong("lets tags move")
    for it in filters.items:
        if it["filter"].text == "*":
            yield it["filter"].wrong("excludes every tag")


def _allowed(resource: Resource) -> Iterator[View]:
    """Statements of an IAM policy that allow something."""
    policy = resource.props["policy"]
    statements = policy.document["Statement"]
    for statement in statements.items or [statements]:
        if statement["Effect"].text == "Allow":
            yield statement


@CONCERN.rule(
    kinds=_IAM_POLICIES,
    severity=Severity.HIGH,
    what="IAM policies name the actions that they allow.",
    why="`s3:*` also deletes the bucket, and lets its policy be changed.",
    fix="list the actions that are called",
    framework="AWS Foundational Security Best Practices, IAM.21",
    link=_IAM_LINK,
)
def iam_names_actions(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    for statement in _allowed(resource):
        if statement["NotAction"].present:
            yield statement["NotAction"].wrong("allows all but what it names")
        for action in statement["Action"].texts:
            if action.rpartition(":")[2] == "*":
                yield statement["Action"].wrong(f"allows {action}")


@CONCERN.rule(
    kinds=_IAM_POLICIES,
    severity=Severity.HIGH,
    what="IAM policies name the resources that may be changed.",
    why="What may write to `*` may write to the next tenant's voices.",
    fix="write the ARN, or a condition by tag; describing and listing may have *",
    framework="AWS Well-Architected, security",
    link=_IAM_LINK,
    config={
        "harmlessActions": {
            "type": "array",
            "items": {"type": "string"},
            "default": ["*:Describe*", "*:List*", "ec2:Get*", "ecr:GetAuthorizationToken"],
            "description": "Actions that may have any resource",
        }
    },
)
def iam_names_resources(resource: Resource, config: Config) -> Iterator[Finding]:
    harmless = config.texts("harmlessActions")
    for statement in _allowed(resource):
        actions = statement["Action"].texts
        reads = all(any(fnmatchcase(it, pattern) for pattern in harmless) for it in actions)
        if reads or statement["Condition"].entries:
            continue
        if statement["NotResource"].present or "*" in statement["Resource"].texts:
            at = "NotResource" if statement["NotResource"].present else "Resource"
            yield statement[at].wrong(f"lets {', '.join(actions[:3])} change anything")


@CONCERN.rule(
    kinds={LAUNCH_TEMPLATE},
    severity=Severity.HIGH,
    what="Nodes answer for their credentials with IMDSv2 only, and not to pods.",
    why="With IMDSv1 one request that a server can be talked into gives away the node's role.",
    fix="set metadataOptions to {httpTokens: required, httpPutResponseHopLimit: 1}",
    framework=_CIS,
    link="https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html",
)
def nodes_require_imdsv2(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    options = resource.props["metadataOptions"]
    if options["httpEndpoint"].text == "disabled":
        return
    if options["httpTokens"].text != "required":
        yield options["httpTokens"].wrong("lets IMDSv1 in")
    if (options["httpPutResponseHopLimit"].number or 1) > 1:
        yield options["httpPutResponseHopLimit"].wrong("lets pods ask for the node's credentials")


@CONCERN.rule(
    kinds={LAUNCH_TEMPLATE},
    severity=Severity.HIGH,
    what="Volumes of nodes are encrypted.",
    why="They hold images, weights, and what speech servers write while they work.",
    fix="set blockDeviceMappings[].ebs.encrypted: true",
    framework=_CIS,
    link="https://docs.aws.amazon.com/ebs/latest/userguide/ebs-encryption.html",
)
def volumes_are_encrypted(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    for mapping in resource.props["blockDeviceMappings"].items:
        if mapping["ebs"].present and not mapping["ebs"]["encrypted"].flag:
            yield mapping["ebs"]["encrypted"].wrong("must be true")


@CONCERN.stack_rule(
    kinds={NODE_GROUP, SUBNET, LAUNCH_TEMPLATE},
    severity=Severity.HIGH,
    what="Nodes have no public addresses.",
    why="A node with one can be reached from the internet past gateway, firewall and tokens.",
    fix="set mapPublicIpOnLaunch: false, and no associatePublicIpAddress in launch templates",
    framework=_EKS,
    link=_EKS_LINK,
)
def nodes_are_private(stack: Stack, config: Config) -> Iterator[Finding]:
    del config
    used = {urn for group in stack.of(NODE_GROUP) for urn in group.dependencies}

    def judge(resource: Resource) -> Iterator[Finding]:
        public = resource.props["mapPublicIpOnLaunch"]
        if public.flag:
            yield public.wrong("gives nodes public addresses")
        for interface in resource.props["networkInterfaces"].items:
            if interface["associatePublicIpAddress"].flag:
                yield interface["associatePublicIpAddress"].wrong("gives nodes public addresses")

    yield from judged((it for it in stack.of(SUBNET) if _holds_nodes(it, used)), judge)
    yield from judged(stack.of(LAUNCH_TEMPLATE), judge)


def _holds_nodes(subnet: Resource, used: set[str]) -> bool:
    """Node groups wait for what their subnets need, public subnets with their NAT gateways
    included; those say by their tag that they are for load balancers."""
    return subnet.urn in used and not subnet.props["tags"]["kubernetes.io/role/elb"].text


@CONCERN.rule(
    kinds={CLUSTER},
    severity=Severity.HIGH,
    what="The control plane writes all five kinds of logs.",
    why="After an incident there is nothing else that says who did what; `audit` alone does not "
    "say how they came in.",
    fix="set enabledClusterLogTypes to all five",
    framework="CIS Amazon EKS Benchmark",
    link="https://docs.aws.amazon.com/eks/latest/userguide/control-plane-logs.html",
)
def cluster_logs_everything(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    types = resource.props["enabledClusterLogTypes"]
    if missing := sorted(set(LOG_TYPES) - set(types.texts)):
        yield types.wrong(f"lacks {', '.join(missing)}")


@CONCERN.rule(
    kinds={CLUSTER},
    severity=Severity.MEDIUM,
    what="The cluster stays in standard support.",
    why="Extended support is on unless it is turned off, and costs six times as much an hour.",
    fix="set upgradePolicy.supportType: STANDARD, and upgrade before the version's end",
    framework="AWS Well-Architected, cost",
    link="https://docs.aws.amazon.com/eks/latest/userguide/kubernetes-versions.html",
)
def cluster_is_in_standard_support(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    support = resource.props["upgradePolicy"]["supportType"]
    if support.text != "STANDARD":
        yield support.wrong("drifts into extended support")


@CONCERN.rule(
    kinds={CLUSTER},
    severity=Severity.HIGH,
    what="Secrets in the cluster are encrypted with a key of KMS.",
    why="Whoever gets at a backup of etcd could otherwise read private keys of hosts.",
    fix="set encryptionConfig with resources: [secrets] and a key",
    framework="CIS Amazon EKS Benchmark",
    link="https://docs.aws.amazon.com/eks/latest/userguide/enable-kms.html",
)
def cluster_secrets_are_encrypted(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    encryption = resource.props["encryptionConfig"]
    if "secrets" not in encryption["resources"].texts:
        yield encryption["resources"].wrong("leaves Secrets as they are")


@CONCERN.rule(
    kinds={CLUSTER},
    severity=Severity.CRITICAL,
    what="The API server is not open to the whole internet.",
    why="One leaked credential, or one fault in the API server, is enough then.",
    fix="set vpcConfig.publicAccessCidrs to the networks that may, or endpointPublicAccess: false",
    framework="CIS Amazon EKS Benchmark",
    link="https://docs.aws.amazon.com/eks/latest/userguide/cluster-endpoint.html",
)
def api_server_is_not_public(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    network = resource.props["vpcConfig"]
    if network["endpointPublicAccess"].flag is False:
        return
    cidrs = network["publicAccessCidrs"]
    if not cidrs.items or any(it.text.endswith("/0") for it in cidrs.items):
        yield cidrs.wrong("lets everybody at the API server")


@CONCERN.rule(
    kinds=STATEFUL,
    severity=Severity.HIGH,
    what="What cannot be made again as it was is protected.",
    why="A renamed component or a wrong stack would otherwise delete voices, keys and images.",
    fix="give it the option protect: true",
    framework="AWS Well-Architected, reliability",
    link="https://www.pulumi.com/docs/iac/concepts/options/protect/",
)
def state_is_protected(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    if not resource.protect:
        yield Finding("options.protect", "false", "lets it be deleted")


@CONCERN.rule(
    kinds={CLUSTER},
    severity=Severity.HIGH,
    what="EKS refuses to delete the cluster.",
    why="Pulumi's protection holds for Pulumi only; a wrong click deletes all that runs.",
    fix="set deletionProtection: true",
    framework="AWS Well-Architected, reliability",
    link="https://docs.aws.amazon.com/eks/latest/userguide/deletion-protection.html",
)
def cluster_refuses_deletion(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    if not resource.props["deletionProtection"].flag:
        yield resource.props["deletionProtection"].wrong("must be true")


@CONCERN.rule(
    kinds={KEY},
    severity=Severity.MEDIUM,
    what="Keys are rotated, and stay for a while after they were deleted.",
    why="All that a deleted key encrypted is lost with it.",
    fix="set enableKeyRotation: true, and deletionWindowInDays to 14 or more",
    framework=_CIS,
    link="https://docs.aws.amazon.com/kms/latest/developerguide/rotate-keys.html",
)
def keys_rotate(resource: Resource, config: Config) -> Iterator[Finding]:
    del config
    rotation, window = resource.props["enableKeyRotation"], resource.props["deletionWindowInDays"]
    if not rotation.flag:
        yield rotation.wrong("must be true")
    if (window.number or 30) < 14:
        yield window.wrong("leaves too little time to notice")


_TAGGED: Final = frozenset(
    {BUCKET, CLUSTER, KEY, REPOSITORY, LAUNCH_TEMPLATE, SUBNET, NODE_GROUP}
    | {"aws:ec2/vpc:Vpc", "aws:ec2/natGateway:NatGateway", "aws:iam/role:Role"}
    | {"aws:cloudwatch/logGroup:LogGroup", "aws:ec2/capacityReservation:CapacityReservation"}
    | {"aws:ec2/eip:Eip", "aws:ec2/vpcEndpoint:VpcEndpoint"}
)


@CONCERN.rule(
    kinds=_TAGGED,
    severity=Severity.LOW,
    what="Resources have the tags that bills and clean-up go by.",
    why="A GPU node that nobody can ascribe is a GPU node that nobody turns off.",
    fix="add the tag, best as one of the provider's defaultTags",
    framework="AWS Well-Architected, cost",
    link="https://docs.aws.amazon.com/whitepapers/latest/tagging-best-practices/tagging-best-practices.html",
    config={
        "tags": {
            "type": "array",
            "items": {"type": "string"},
            "default": ["project", "environment"],
            "description": "Keys of tags that every resource has to have",
        }
    },
)
def tags_are_there(resource: Resource, config: Config) -> Iterator[Finding]:
    tags = resource.props["tags"]
    every = {**resource.provider["defaultTags"].document["tags"].labels, **tags.labels}
    for key in config.texts("tags"):
        if not every.get(key):
            yield tags.wrong(f"has no {key}")
