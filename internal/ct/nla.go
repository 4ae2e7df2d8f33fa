package ct

// Attribute numbers: include/uapi/linux/netfilter/nfnetlink_conntrack.h.
const (
	ctaTupleOrig     = 1
	ctaTupleReply    = 2
	ctaStatus        = 3
	ctaProtoinfo     = 4
	ctaHelp          = 5
	ctaNATSrc        = 6
	ctaTimeout       = 7
	ctaMark          = 8
	ctaCountersOrig  = 9
	ctaCountersReply = 10
	ctaUse           = 11
	ctaID            = 12
	ctaNATDst        = 13
	ctaTupleMaster   = 14
	ctaSeqAdjOrig    = 15
	ctaSeqAdjReply   = 16
	ctaSecmark       = 17
	ctaZone          = 18
	ctaSecctx        = 19
	ctaTimestamp     = 20
	ctaMarkMask      = 21
	ctaLabels        = 22
	ctaLabelsMask    = 23
	ctaSynproxy      = 24
	ctaFilter        = 25
	ctaStatusMask    = 26
	ctaTimestampEv   = 27

	ctaTupleIP    = 1
	ctaTupleProto = 2
	ctaTupleZone  = 3

	ctaIPv4Src = 1
	ctaIPv4Dst = 2
	ctaIPv6Src = 3
	ctaIPv6Dst = 4

	ctaProtoNum        = 1
	ctaProtoSrcPort    = 2
	ctaProtoDstPort    = 3
	ctaProtoICMPID     = 4
	ctaProtoICMPType   = 5
	ctaProtoICMPCode   = 6
	ctaProtoICMPv6ID   = 7
	ctaProtoICMPv6Type = 8
	ctaProtoICMPv6Code = 9

	ctaProtoinfoTCP  = 1
	ctaProtoinfoDCCP = 2
	ctaProtoinfoSCTP = 3

	ctaTCPState       = 1
	ctaTCPWscaleOrig  = 2
	ctaTCPWscaleReply = 3
	ctaTCPFlagsOrig   = 4
	ctaTCPFlagsReply  = 5

	ctaDCCPState = 1
	ctaDCCPRole  = 2
	ctaDCCPSeq   = 3

	ctaSCTPState     = 1
	ctaSCTPVtagOrig  = 2
	ctaSCTPVtagReply = 3

	ctaCountersPackets = 1
	ctaCountersBytes   = 2

	ctaTimestampStart = 1
	ctaTimestampStop  = 2

	ctaNATv4Min = 1
	ctaNATv4Max = 2
	ctaNATProto = 3
	ctaNATv6Min = 4
	ctaNATv6Max = 5

	ctaProtoNATMin = 1
	ctaProtoNATMax = 2

	ctaSeqPos    = 1
	ctaSeqBefore = 2
	ctaSeqAfter  = 3

	ctaSynISN   = 1
	ctaSynITS   = 2
	ctaSynTSOff = 3

	ctaHelpName   = 1
	ctaHelpInfo   = 2
	ctaSecctxName = 1

	ctaFilterOrig  = 1
	ctaFilterReply = 2

	ctaExpMaster   = 1
	ctaExpTuple    = 2
	ctaExpMask     = 3
	ctaExpTimeout  = 4
	ctaExpID       = 5
	ctaExpHelpName = 6
	ctaExpZone     = 7
	ctaExpFlags    = 8
	ctaExpClass    = 9
	ctaExpNAT      = 10
	ctaExpFn       = 11

	ctaExpNATDir   = 1
	ctaExpNATTuple = 2
)

// Messages: enum cntl_msg_types and enum ctnl_exp_msg_types.
const (
	msgNew            = 0
	msgGet            = 1
	msgDelete         = 2
	msgGetZero        = 3
	msgGetStatsCPU    = 4
	msgGetStats       = 5
	msgGetDying       = 6
	msgGetUnconfirmed = 7

	msgExpGetStatsCPU = 3
)
