"""The part of Pulumi's released AWS provider that the project uses, over botocore.

- `mapping`: how one resource type is written down, as a table; conversions to and from AWS.
- `s3`, `kms`, `ec2`, `security_group`, `launch_template`, `capacity`, `eks`, `iam`, `ecr`, `logs`:
  the tables.
- `checking`: what is wrong with a program's inputs, by AWS's own service model.
- `resource`: the one engine that creates, reads, changes and deletes by a table.
- `unsimulated`: resources of types that the local AWS server does not know.
- `provider`: configuration, clients, functions; the plugin's entry point.

Stand-in, in these points:

- A type, property or option that is not in the tables is refused by name.
- `provider.UNSIMULATED` names the types that the local AWS server does not know. They are checked
  by AWS's service model and kept in the stack's state alone; `pulumi up` says so for each.
- `provider.UNTOLD` names the properties that the server takes and does not tell again: a refresh
  sees no drift in them.
- Clusters, node groups and NAT gateways are awaited. AWS's eventual consistency is not waited out
  otherwise, since the local AWS server has none.
"""
