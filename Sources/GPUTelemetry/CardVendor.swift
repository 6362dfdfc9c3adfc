/// Who made a card.
package enum CardVendor: String, Sendable, Equatable {
    case amd
    case nvidia
    case intel

    /// Nil for whoever makes no GPU that jobs can run on (a server's management display, a virtual machine's screen).
    package init?(pciID: UInt16) {
        switch pciID {
        case 0x1002: self = .amd
        case 0x10de: self = .nvidia
        case 0x8086: self = .intel
        default: return nil
        }
    }
}
