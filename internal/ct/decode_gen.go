// Code generated of the table of attributes by make gen; DO NOT EDIT.

package ct

import "nfctl/internal/nl"

// DecodeAttrs is Decode for attributes without a header, as a queue's packet
// carries them (NFQA_CT). It reads them as flowCodec does, which reads those that
// this text does not know yet.
func (f *Flow) DecodeAttrs(family uint8, b []byte) error {
	f.Reset()
	for len(b) > 0 {
		a, rest, ok := nl.NextAttr(b)
		if !ok {
			return errMalformed
		}
		b = rest
		switch a.Type {
		case 1:
			f.Orig.decode(family, a.Data)
		case 2:
			f.Reply.decode(family, a.Data)
		case 3:
			if n, ok := a.U32(); ok {
				f.Status = n
				f.Present |= 1 << 0
			}
		case 4:
			for a, b, ok := nl.NextAttr(a.Data); ok; a, b, ok = nl.NextAttr(b) {
				switch a.Type {
				case 1:
					for a, b, ok := nl.NextAttr(a.Data); ok; a, b, ok = nl.NextAttr(b) {
						switch a.Type {
						case 1:
							if n, ok := a.U8(); ok {
								f.TCPState = n
								f.Present |= 1 << 20
							}
						case 2:
							if n, ok := a.U8(); ok {
								f.TCPWscaleOrig = n
								f.Present |= 1 << 21
							}
						case 3:
							if n, ok := a.U8(); ok {
								f.TCPWscaleReply = n
								f.Present |= 1 << 22
							}
						case 4:
							if len(a.Data) >= 2 {
								f.TCPFlagsOrig, f.TCPMaskOrig = a.Data[0], a.Data[1]
								f.Present |= 1<<23 | 1<<25
							}
						case 5:
							if len(a.Data) >= 2 {
								f.TCPFlagsReply, f.TCPMaskReply = a.Data[0], a.Data[1]
								f.Present |= 1<<24 | 1<<26
							}
						default:
							f.decodeOther(family, a, 0x401)
						}
					}
				case 2:
					for a, b, ok := nl.NextAttr(a.Data); ok; a, b, ok = nl.NextAttr(b) {
						switch a.Type {
						case 1:
							if n, ok := a.U8(); ok {
								f.DCCPState = n
								f.Present |= 1 << 30
							}
						case 2:
							if n, ok := a.U8(); ok {
								f.DCCPRole = n
								f.Present |= 1 << 31
							}
						case 3:
							if n, ok := a.U64(); ok {
								f.DCCPSeq = n
								f.Present |= 1 << 32
							}
						default:
							f.decodeOther(family, a, 0x402)
						}
					}
				case 3:
					for a, b, ok := nl.NextAttr(a.Data); ok; a, b, ok = nl.NextAttr(b) {
						switch a.Type {
						case 1:
							if n, ok := a.U8(); ok {
								f.SCTPState = n
								f.Present |= 1 << 27
							}
						case 2:
							if n, ok := a.U32(); ok {
								f.SCTPVtagOrig = n
								f.Present |= 1 << 28
							}
						case 3:
							if n, ok := a.U32(); ok {
								f.SCTPVtagReply = n
								f.Present |= 1 << 29
							}
						default:
							f.decodeOther(family, a, 0x403)
						}
					}
				default:
					f.decodeOther(family, a, 0x4)
				}
			}
		case 5:
			for a, b, ok := nl.NextAttr(a.Data); ok; a, b, ok = nl.NextAttr(b) {
				switch a.Type {
				case 1:
					f.Helper = a.Text()
					f.Present |= 1 << 9
				case 2:
					f.HelperInfo = a.Data
					f.Present |= 1 << 10
				default:
					f.decodeOther(family, a, 0x5)
				}
			}
		case 6:
			if f.SNAT.decode(a.Data) {
				f.Present |= 1 << 42
			}
		case 7:
			if n, ok := a.U32(); ok {
				f.Timeout = n
				f.Present |= 1 << 1
			}
		case 8:
			if n, ok := a.U32(); ok {
				f.Mark = n
				f.Present |= 1 << 2
			}
		case 9:
			for a, b, ok := nl.NextAttr(a.Data); ok; a, b, ok = nl.NextAttr(b) {
				switch a.Type {
				case 1:
					if n, ok := a.U64(); ok {
						f.OrigCounters.Packets = n
						f.Present |= 1 << 16
					}
				case 2:
					if n, ok := a.U64(); ok {
						f.OrigCounters.Bytes = n
						f.Present |= 1 << 17
					}
				default:
					f.decodeOther(family, a, 0x9)
				}
			}
		case 10:
			for a, b, ok := nl.NextAttr(a.Data); ok; a, b, ok = nl.NextAttr(b) {
				switch a.Type {
				case 1:
					if n, ok := a.U64(); ok {
						f.ReplyCounters.Packets = n
						f.Present |= 1 << 18
					}
				case 2:
					if n, ok := a.U64(); ok {
						f.ReplyCounters.Bytes = n
						f.Present |= 1 << 19
					}
				default:
					f.decodeOther(family, a, 0xa)
				}
			}
		case 11:
			if n, ok := a.U32(); ok {
				f.Use = n
				f.Present |= 1 << 4
			}
		case 12:
			if n, ok := a.U32(); ok {
				f.ID = n
				f.Present |= 1 << 5
			}
		case 13:
			if f.DNAT.decode(a.Data) {
				f.Present |= 1 << 43
			}
		case 14:
			f.Master.decode(family, a.Data)
		case 15:
			for a, b, ok := nl.NextAttr(a.Data); ok; a, b, ok = nl.NextAttr(b) {
				switch a.Type {
				case 1:
					if n, ok := a.U32(); ok {
						f.SeqOrig.Pos = n
						f.Present |= 1 << 33
					}
				case 2:
					if n, ok := a.U32(); ok {
						f.SeqOrig.Before = n
						f.Present |= 1 << 34
					}
				case 3:
					if n, ok := a.U32(); ok {
						f.SeqOrig.After = n
						f.Present |= 1 << 35
					}
				default:
					f.decodeOther(family, a, 0xf)
				}
			}
		case 16:
			for a, b, ok := nl.NextAttr(a.Data); ok; a, b, ok = nl.NextAttr(b) {
				switch a.Type {
				case 1:
					if n, ok := a.U32(); ok {
						f.SeqReply.Pos = n
						f.Present |= 1 << 36
					}
				case 2:
					if n, ok := a.U32(); ok {
						f.SeqReply.Before = n
						f.Present |= 1 << 37
					}
				case 3:
					if n, ok := a.U32(); ok {
						f.SeqReply.After = n
						f.Present |= 1 << 38
					}
				default:
					f.decodeOther(family, a, 0x10)
				}
			}
		case 17:
			if n, ok := a.U32(); ok {
				f.Secmark = n
				f.Present |= 1 << 7
			}
		case 18:
			if n, ok := a.U16(); ok {
				f.Zone = n
				f.Present |= 1 << 6
			}
		case 19:
			for a, b, ok := nl.NextAttr(a.Data); ok; a, b, ok = nl.NextAttr(b) {
				switch a.Type {
				case 1:
					f.Secctx = a.Text()
					f.Present |= 1 << 8
				default:
					f.decodeOther(family, a, 0x13)
				}
			}
		case 20:
			for a, b, ok := nl.NextAttr(a.Data); ok; a, b, ok = nl.NextAttr(b) {
				switch a.Type {
				case 1:
					if n, ok := a.U64(); ok {
						f.Start = n
						f.Present |= 1 << 13
					}
				case 2:
					if n, ok := a.U64(); ok {
						f.Stop = n
						f.Present |= 1 << 14
					}
				default:
					f.decodeOther(family, a, 0x14)
				}
			}
		case 21:
			if n, ok := a.U32(); ok {
				f.MarkMask = n
				f.Present |= 1 << 3
			}
		case 22:
			f.Labels = [16]byte{}
			copy(f.Labels[:], a.Data)
			f.Present |= 1 << 11
		case 23:
			f.LabelsMask = [16]byte{}
			copy(f.LabelsMask[:], a.Data)
			f.Present |= 1 << 12
		case 24:
			for a, b, ok := nl.NextAttr(a.Data); ok; a, b, ok = nl.NextAttr(b) {
				switch a.Type {
				case 1:
					if n, ok := a.U32(); ok {
						f.SynISN = n
						f.Present |= 1 << 39
					}
				case 2:
					if n, ok := a.U32(); ok {
						f.SynITS = n
						f.Present |= 1 << 40
					}
				case 3:
					if n, ok := a.U32(); ok {
						f.SynTSOff = n
						f.Present |= 1 << 41
					}
				default:
					f.decodeOther(family, a, 0x18)
				}
			}
		case 27:
			if n, ok := a.U64(); ok {
				f.EventTime = n
				f.Present |= 1 << 15
			}
		default:
			f.decodeOther(family, a, 0x0)
		}
	}
	return nil
}
