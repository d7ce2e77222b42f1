"""The part of Pulumi's released AWS provider that the project uses, over botocore.

- `mapping`: how one resource type is written down, as a table; conversions to and from AWS.
- `s3`, `kms`: the tables.
- `checking`: what is wrong with a program's inputs, by AWS's own service model.
- `resource`: the one engine that creates, reads, changes and deletes by a table.
- `provider`: configuration, clients, functions; the plugin's entry point.

Stand-in: a type, property or option that is not in the tables is refused by name; AWS's eventual
consistency is not waited out, since the local AWS server has none.
"""
