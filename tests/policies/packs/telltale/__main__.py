"""A pack of the tests: its violations say all that it is told about a resource, or the stack."""

import json

import pulumi
from pulumi_policy import PolicyPack, ResourceValidationPolicy, StackValidationPolicy
from pulumi_policy.deserialize import serialize_properties


def _plain(value):
    if isinstance(value, (pulumi.Asset, pulumi.Archive)):
        return type(value).__name__
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list) else value


def _provider(resource):
    provider = resource.provider
    return provider and [provider.resource_type, provider.name]


def _options(resource):
    opts = resource.opts
    timeouts = opts.custom_timeouts
    return {
        "protect": opts.protect,
        "ignoreChanges": list(opts.ignore_changes),
        "deleteBeforeReplace": opts.delete_before_replace,
        "aliases": sorted(opts.aliases),
        "customTimeouts": [
            timeouts.create_seconds,
            timeouts.update_seconds,
            timeouts.delete_seconds,
        ],
        "additionalSecretOutputs": sorted(opts.additional_secret_outputs),
        "parent": opts.parent,
    }


def _tell_resource(args, report):
    told = {
        "type": args.resource_type,
        "name": args.name,
        "options": _options(args),
        "provider": _provider(args),
        "properties": _plain(dict(serialize_properties(args.props))),
    }
    report(json.dumps(told, sort_keys=True))


def _tell_stack(args, report):
    for resource in args.resources:
        told = {
            "type": resource.resource_type,
            "name": resource.name,
            "options": _options(resource),
            "provider": _provider(resource),
            "parent": resource.parent and resource.parent.urn,
            "dependencies": sorted(one.urn for one in resource.dependencies),
            "propertyDependencies": {
                key: sorted(one.urn for one in found)
                for key, found in resource.property_dependencies.items()
            },
        }
        report(json.dumps(told, sort_keys=True), resource.urn)


PolicyPack(
    name="telltale",
    policies=[
        ResourceValidationPolicy(
            "tell-resource", "What a resource policy is told.", _tell_resource
        ),
        StackValidationPolicy("tell-stack", "What a stack policy is told.", _tell_stack),
    ],
)
