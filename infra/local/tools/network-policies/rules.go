package main

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

const tableName = "network-policies"

// writeRules replaces the table that queues each new connection from or to the pods.
//
// Packets are queued after a Service's address was translated and before any source address is.
// DNS queries are queued earlier: kernels before 6.12 drop one of two simultaneous queries of a
// socket if they wait in a queue where they are confirmed
// (https://bugzilla.netfilter.org/show_bug.cgi?id=1766).
func writeRules(podRange string, queueNumber uint16) error {
	pods, err := netip.ParsePrefix(podRange)
	if err != nil {
		return err
	}
	connection, err := nftables.New()
	if err != nil {
		return err
	}
	table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4}
	connection.AddTable(table)
	connection.DelTable(table) // with AddTable before, no error if there was none
	connection.AddTable(table)

	chain := func(name string, hook *nftables.ChainHook, priority int32) func(...[]expr.Any) {
		chain := connection.AddChain(&nftables.Chain{
			Name:     name,
			Table:    table,
			Type:     nftables.ChainTypeFilter,
			Hooknum:  hook,
			Priority: nftables.ChainPriorityRef(nftables.ChainPriority(priority)),
		})
		return func(rule ...[]expr.Any) {
			var expressions []expr.Any
			for _, part := range rule {
				expressions = append(expressions, part...)
			}
			connection.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: expressions})
		}
	}
	afterTranslation := int32(*nftables.ChainPriorityNATDest) + 5
	beforeMasquerade := int32(*nftables.ChainPriorityNATSource) - 5

	prerouting := chain("prerouting", nftables.ChainHookPrerouting, afterTranslation)
	prerouting(unlessNew(), accept())
	prerouting(from(pods), isDNS(), queue(queueNumber))
	prerouting(to(pods), isDNS(), queue(queueNumber))

	input := chain("input", nftables.ChainHookInput, beforeMasquerade)
	input(unlessNew(), accept())
	input(isDNS(), accept())
	input(from(pods), queue(queueNumber))

	postrouting := chain("postrouting", nftables.ChainHookPostrouting, beforeMasquerade)
	postrouting(unlessNew(), accept())
	postrouting(isDNS(), accept())
	postrouting(ofRoot(), accept())
	postrouting(from(pods), queue(queueNumber))
	postrouting(to(pods), queue(queueNumber))
	return connection.Flush()
}

func unlessNew() []expr.Any {
	return []expr.Any{
		&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
		&expr.Bitwise{
			SourceRegister: 1,
			DestRegister:   1,
			Len:            4,
			Mask:           binaryutil.NativeEndian.PutUint32(expr.CtStateBitNEW),
			Xor:            make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)},
	}
}

func isDNS() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(53)},
	}
}

// ofRoot matches what a process of root on the node itself sends.
func ofRoot() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeySKUID, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)},
	}
}

func from(pods netip.Prefix) []expr.Any { return addressAt(12, pods) }

func to(pods netip.Prefix) []expr.Any { return addressAt(16, pods) }

func addressAt(offset uint32, pods netip.Prefix) []expr.Any {
	mask := binaryutil.BigEndian.PutUint32(^uint32(0) << (32 - pods.Bits()))
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: pods.Masked().Addr().AsSlice()},
	}
}

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

// queue is the kernel's struct xt_NFQ_info_v3, padded to 8 bytes: number of the queue, number of
// queues, flags. Without the bypass flag, nothing passes when nobody reads the queue.
func queue(number uint16) []expr.Any {
	info := xt.Unknown(binaryutil.NativeEndian.PutUint16(number))
	info = append(info, binaryutil.NativeEndian.PutUint16(1)...)
	info = append(info, make([]byte, 4)...)
	return []expr.Any{&expr.Target{Name: "NFQUEUE", Rev: 3, Info: &info}}
}
