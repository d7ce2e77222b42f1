// Enforces NetworkPolicies on one node: every new connection from or to a pod waits in a queue
// until this program lets it pass or drops it. What a policy allows is decided by
// kube-network-policies, of Kubernetes' SIG Network.
//
// That project's own program fills the queue by a statement of nftables which a kernel may lack
// (CONFIG_NFT_QUEUE). This one fills it by the target of xtables that does the same
// (CONFIG_NETFILTER_XT_TARGET_NFQUEUE) and that any kernel made for iptables has.
//
// As in that project, processes of root on the node itself always reach the pods, so that policies
// do not stop the kubelet's probes. A connection that exists when a policy changes goes on.
package main

import (
	"context"
	"flag"
	"os/signal"
	"syscall"
	"time"

	"github.com/florianl/go-nfqueue/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/time/rate"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/kube-network-policies/pkg/api"
	"sigs.k8s.io/kube-network-policies/pkg/network"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
	"sigs.k8s.io/kube-network-policies/pkg/podinfo"
)

const queueNumber = 100

func main() {
	kubeconfig := flag.String("kubeconfig", "", "how to reach the API server")
	node := flag.String("node", "", "name of the node that this runs on")
	podRange := flag.String("pod-range", "", "addresses of the pods of all nodes, such as 10.244.0.0/16")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	engine, err := startEngine(ctx, *kubeconfig, *node)
	if err != nil {
		klog.Fatalf("cannot watch the policies: %v", err)
	}
	queue, err := startQueue(ctx, engine)
	if err != nil {
		klog.Fatalf("cannot read the queue: %v", err)
	}
	defer queue.Close()
	if err := writeRules(*podRange, queueNumber); err != nil {
		klog.Fatalf("cannot write the rules of the kernel: %v", err)
	}
	klog.Infof("enforcing NetworkPolicies on %s for %s", *node, *podRange)
	<-ctx.Done()
}

// startEngine watches policies, pods and namespaces, and returns when it knows all of them.
func startEngine(ctx context.Context, kubeconfig, node string) (*networkpolicy.PolicyEngine, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	namespaces := factory.Core().V1().Namespaces()
	pods := factory.Core().V1().Pods()
	policies := factory.Networking().V1().NetworkPolicies()
	byAddress, err := podinfo.NewInformerResolver(pods.Informer())
	if err != nil {
		return nil, err
	}
	provider := podinfo.NewInformerProvider(pods, namespaces, nil, []podinfo.IPResolver{byAddress})
	engine := networkpolicy.NewPolicyEngine(provider, []api.PolicyEvaluator{
		networkpolicy.NewStandardNetworkPolicy(node, namespaces, pods, policies),
	})
	engine.SetDataplaneSyncCallbacks(func() {}) // the rules are the same whatever the policies
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	for !engine.Ready() {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return engine, nil
}

// startQueue answers for each queued packet whether it may pass.
func startQueue(ctx context.Context, engine *networkpolicy.PolicyEngine) (*nfqueue.Nfqueue, error) {
	queue, err := nfqueue.Open(&nfqueue.Config{
		NfQueue:      queueNumber,
		Flags:        nfqueue.NfQaCfgFlagGSO,
		MaxPacketLen: 128, // the headers
		MaxQueueLen:  1024,
		Copymode:     nfqueue.NfQnlCopyPacket,
		WriteTimeout: 100 * time.Millisecond,
	})
	if err != nil {
		return nil, err
	}
	logs := rate.NewLimiter(rate.Every(time.Second), 20)
	answer := func(packet nfqueue.Attribute) int {
		verdict := nfqueue.NfDrop
		if mayPass(ctx, engine, *packet.Payload, logs) {
			verdict = nfqueue.NfAccept
		}
		if err := queue.SetVerdict(*packet.PacketID, verdict); err != nil {
			klog.Errorf("cannot answer for a packet: %v", err)
		}
		return 0
	}
	return queue, queue.RegisterWithErrorFunc(ctx, answer, func(err error) int {
		if failure, ok := err.(*netlink.OpError); !ok || !(failure.Timeout() || failure.Temporary()) {
			klog.Errorf("cannot receive a packet: %v", err)
		}
		return 0
	})
}

func mayPass(ctx context.Context, engine *networkpolicy.PolicyEngine, headers []byte, logs *rate.Limiter) bool {
	packet, err := network.ParsePacket(headers)
	if err != nil {
		klog.Errorf("dropped a packet that cannot be read: %v", err)
		return false
	}
	allowed, err := engine.EvaluatePacket(ctx, &packet)
	if err != nil {
		klog.Errorf("dropped a packet that cannot be judged: %v", err)
		return false
	}
	if !allowed && logs.Allow() {
		klog.Infof("denied %s %s:%d -> %s:%d", packet.Proto, packet.SrcIP, packet.SrcPort, packet.DstIP, packet.DstPort)
	}
	return allowed
}
