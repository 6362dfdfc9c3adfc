/// A card of a made-up machine.
package struct FakeCard: Sendable {
    package enum Kind: String, Sendable {
        case rx580, gtx1660, gtx1060, intel
    }

    package var kind: Kind
    /// The kernel's form, "0000:03:00.0".
    package var address: String
    /// The N of cardN; its render node is renderD(128+N).
    package var cardNumber: Int
    package var hwmonNumber: Int
    /// The kernel driver; nil for none.
    package var driver: String?
    /// Whether KFD offers it to ROCm.
    package var hasKFD = false

    package init(_ kind: Kind, at address: String, cardNumber: Int, hwmonNumber: Int) {
        self.kind = kind
        self.address = address
        self.cardNumber = cardNumber
        self.hwmonNumber = hwmonNumber
        switch kind {
        case .rx580: driver = "amdgpu"
        case .gtx1660, .gtx1060: driver = "nvidia"
        case .intel: driver = "i915"
        }
    }

    package var renderMinor: Int { 128 + cardNumber }

    var ids: (vendor: Int, device: Int) {
        switch kind {
        case .rx580: (0x1002, 0x67df)
        case .gtx1660: (0x10de, 0x2184)
        case .gtx1060: (0x10de, 0x1c03)
        case .intel: (0x8086, 0x3e92)
        }
    }

    /// The UUID that NVML tells: made of the address, so that each is its own.
    package var uuid: String {
        let digits = address.filter { $0 != ":" && $0 != "." }
        return "GPU-\(digits.prefix(8))-1111-2222-3333-\(String(repeating: "0", count: 11))\(digits.suffix(1))"
    }

    /// A rig of equal cards behind one bridge each, with the numbers of nodes and monitors in another order than
    /// the addresses.
    package static func rig(
        _ kind: Kind,
        count: Int,
        firstBus: Int,
        shuffledBy generator: inout some RandomNumberGenerator
    )
        -> [FakeCard]
    {
        let cards = Array(0..<count).shuffled(using: &generator)
        let monitors = Array(0..<count).shuffled(using: &generator)
        return (0..<count).map { index in
            let bus = String(firstBus + index, radix: 16)
            let place = "\(bus.count < 2 ? "0" : "")\(bus)"
            // An integrated one is a device of the first bus; the others stand behind bridges.
            let address = kind == .intel ? "0000:00:\(place).0" : "0000:\(place):00.0"
            return FakeCard(
                kind,
                at: address,
                cardNumber: cards[index] + firstBus,
                hwmonNumber: monitors[index] + firstBus
            )
        }
    }

    /// Why a description of a rig is none.
    package struct MalformedRig: Error, CustomStringConvertible {
        package let description: String
    }

    /// Reads "12xrx580,1xgtx1660": that many cards of each kind, one kind after the other on the bus.
    package static func rig(_ text: String, seed: UInt64) throws(MalformedRig) -> [FakeCard] {
        var generator = SplitMix64(seed: seed)
        var cards: [FakeCard] = []
        for part in text.split(separator: ",") {
            let words = part.split(separator: "x", maxSplits: 1)
            guard words.count == 2, let count = Int(words[0]), (1...64).contains(count), cards.count + count <= 120,
                let kind = Kind(rawValue: String(words[1]))
            else {
                throw MalformedRig(
                    description: "\"\(part)\" is not of the form 12xrx580 (rx580, gtx1660, gtx1060, intel)"
                )
            }
            cards += rig(kind, count: count, firstBus: cards.count + 1, shuffledBy: &generator)
        }
        return cards
    }
}

/// The same numbers for the same seed on every machine.
package struct SplitMix64: RandomNumberGenerator {
    private var state: UInt64
    package init(seed: UInt64) { state = seed }

    package mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}
