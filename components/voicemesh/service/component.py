"""The component that puts a voice's pods and routes together."""

from collections.abc import Sequence

import pulumi
from pulumi_kubernetes.apps.v1 import Deployment
from pulumi_kubernetes.autoscaling.v2 import HorizontalPodAutoscaler
from pulumi_kubernetes.core.v1 import Service, ServiceAccount, ServicePortArgs, ServiceSpecArgs
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs
from pulumi_kubernetes.policy.v1 import PodDisruptionBudget

from voicemesh import contract
from voicemesh.arguments import Faults
from voicemesh.component import after, child_options
from voicemesh.istio import DestinationRule, VirtualService
from voicemesh.mesh import TRUST_DOMAIN
from voicemesh.service import authorization, autoscalers, resilience, traffic, workload
from voicemesh.service.arguments import TtsVoiceServiceArgs, VoiceVariant, check_names
from voicemesh.service.keda import ScaledObject
from voicemesh.service.scaling import Scaler


class TtsVoiceService(pulumi.ComponentResource):
    """A voice: pods in variants, and routes that share requests among them by weight.

    A weight takes effect after every variant is ready, so a new version gets its share only once
    it speaks. Each variant's failing pods are ejected by the proxies that call them.
    """

    host: pulumi.Output[str]
    """Name of the voice within the cluster; it exists once requests are routed."""

    urls: pulumi.Output[list[str]]
    """Where the public reaches it."""

    principal: pulumi.Output[str]
    """Identity of its pods, for authorization policies of what they call."""

    versions: pulumi.Output[dict[str, str]]
    """Version of each variant, by its name."""

    service_account: pulumi.Output[str]
    """Name of the account that its pods run as, in its namespace."""

    def __init__(
        self, name: str, args: TtsVoiceServiceArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        if args.service_name is None:
            faults = Faults("TtsVoiceService")
            check_names(faults, "name", name, args.variants)
            faults.raise_any()
        super().__init__("voicemesh:index:TtsVoiceService", name, {}, opts)
        self._name_prefix = name
        self._args = args
        self._service = args.service_name or name
        account = ServiceAccount(
            name,
            metadata=self._metadata(),
            automount_service_account_token=False,
            opts=child_options(self),
        )
        self.service_account = after(self._service, account)
        deployments = [self._variant(variant) for variant in args.variants]
        service = self._kubernetes_service(deployments)
        rule = DestinationRule(
            name,
            self._metadata(),
            resilience.destination_rule(self._service, args),
            child_options(self),
        )
        routes = self._routes([*deployments, rule, *self._access()])
        host = traffic.service_host(self._service, args.namespace)
        self.host = after(host, service, *routes)
        self.urls = after([f"https://{public}" for public in args.hosts], *routes)
        self.principal = pulumi.Output.concat(
            TRUST_DOMAIN, "/ns/", args.namespace, "/sa/", self._service
        )
        self.versions = after({v.name: v.version for v in args.variants}, *deployments)
        self.register_outputs(
            {
                "host": self.host,
                "urls": self.urls,
                "principal": self.principal,
                "versions": self.versions,
                "service_account": self.service_account,
            }
        )

    def _metadata(self, suffix: str = "") -> ObjectMetaArgs:
        return ObjectMetaArgs(
            name=f"{self._service}{suffix}",
            namespace=self._args.namespace,
            labels={contract.APP_LABEL: self._service},
        )

    def _access(self) -> list[pulumi.Resource]:
        args = self._args
        return authorization.declare_access(
            self,
            self._name_prefix,
            self._service,
            args.namespace,
            args.access,
            args.gateway_principal if args.hosts else None,
            args.issuers if args.hosts else (),
        )

    def _variant(self, variant: VoiceVariant) -> Deployment:
        """A variant's Deployment, and what evicts and scales its pods."""
        name, metadata = f"{self._name_prefix}-{variant.name}", self._metadata(f"-{variant.name}")
        timeouts = workload.rollout_timeouts(self._args, variant)
        deployment = Deployment(
            name,
            metadata=metadata,
            spec=workload.deployment_spec(self._service, self._args, variant, self.service_account),
            opts=child_options(self, pulumi.ResourceOptions(custom_timeouts=timeouts)),
        )
        PodDisruptionBudget(
            name,
            metadata=metadata,
            spec=workload.disruption_budget(self._service, variant),
            opts=child_options(self),
        )
        self._autoscaler(name, metadata, variant, deployment)
        return deployment

    def _autoscaler(
        self, name: str, metadata: ObjectMetaArgs, variant: VoiceVariant, deployment: Deployment
    ) -> None:
        args, autoscaling = self._args, variant.autoscaling
        if autoscaling is None:
            return
        target = f"{self._service}-{variant.name}"
        options = child_options(self, pulumi.ResourceOptions(depends_on=[deployment]))
        if args.scaler is Scaler.CPU:
            spec = autoscalers.cpu_autoscaler(target, autoscaling)
            HorizontalPodAutoscaler(name, metadata=metadata, spec=spec, opts=options)
        else:
            spec = autoscalers.scaled_object(
                target, args.namespace, args.prometheus_url, variant, autoscaling
            )
            ScaledObject(name, metadata, spec, options)

    def _kubernetes_service(self, deployments: Sequence[Deployment]) -> Service:
        port = ServicePortArgs(
            name=workload.PORT_NAME,
            port=contract.HTTP_PORT,
            target_port=workload.PORT_NAME,
            app_protocol="http",
        )
        return Service(
            self._name_prefix,
            metadata=self._metadata(),
            spec=ServiceSpecArgs(selector={contract.APP_LABEL: self._service}, ports=[port]),
            # Pulumi waits for a Service's endpoints: as many as it makes at a time would keep the
            # pods that they wait for from being made.
            opts=child_options(self, pulumi.ResourceOptions(depends_on=deployments)),
        )

    def _routes(self, depends_on: list[pulumi.Resource]) -> list[pulumi.Resource]:
        args = self._args
        options = child_options(self, pulumi.ResourceOptions(depends_on=depends_on))
        routes: list[pulumi.Resource] = [
            VirtualService(
                f"{self._name_prefix}-mesh",
                self._metadata("-mesh"),
                traffic.mesh_routes(self._service, args),
                options,
            )
        ]
        if args.gateway_ref is not None and args.hosts:
            public = traffic.public_routes(self._service, args)
            routes.append(
                VirtualService(
                    f"{self._name_prefix}-public", self._metadata("-public"), public, options
                )
            )
        return routes
