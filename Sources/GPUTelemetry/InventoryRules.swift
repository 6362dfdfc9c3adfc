/// Names one card whatever number it has.
package enum CardSelector: Sendable, Hashable, CustomStringConvertible {
    case address(PCIAddress)
    /// NVIDIA's `GPU-…`, or AMD's unique id.
    case uuid(String)

    /// Reads a PCI address or a UUID; nil for anything else.
    package init?(_ text: String) {
        if let address = PCIAddress(text) {
            self = .address(address)
            return
        }
        let isUUID =
            text.utf8.count >= 8 && text.utf8.count <= 80
            && text.utf8.allSatisfy {
                switch $0 {
                case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "z"),
                    UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "-"):
                    true
                default: false
                }
            }
        guard isUUID else { return nil }
        self = .uuid(text)
    }

    package func matches(_ card: Card) -> Bool {
        switch self {
        case .address(let address): address == card.address
        case .uuid(let uuid): uuid.lowercased() == card.uuid?.lowercased()
        }
    }

    package var description: String {
        switch self {
        case .address(let address): "\(address)"
        case .uuid(let uuid): uuid
        }
    }
}

/// What the configuration says about which cards count and which number each has.
package struct InventoryRules: Sendable, Equatable {
    /// Numbers that are bound to one card; the others number the remaining cards in the order of their addresses.
    package var pins: [Int: CardSelector] = [:]
    package var excluded: Set<CardSelector> = []
    /// Leaves the card out that the system's screen hangs on.
    package var excludesDisplay = false
    /// Leaves processors' own graphics out.
    package var excludesIntegrated = true

    package init() {}

    /// Reads the words of GPU_PINS (`3=0000:05:00.0`) and GPU_EXCLUDE (`integrated`, `display`, an address, a UUID).
    package init(pins: [String], exclude: [String]) throws(InventoryError) {
        self.init()
        excludesIntegrated = false
        for word in pins {
            let parts = word.split(separator: "=", maxSplits: 1)
            guard parts.count == 2, let number = Int(parts[0]), (0...9999).contains(number),
                let selector = CardSelector(String(parts[1]))
            else { throw .malformedPin(word) }
            guard self.pins.updateValue(selector, forKey: number) == nil,
                !self.pins.contains(where: { $0.key != number && $0.value == selector })
            else { throw .repeatedPin(word) }
        }
        for word in exclude {
            switch word {
            case "integrated": excludesIntegrated = true
            case "display": excludesDisplay = true
            default:
                guard let selector = CardSelector(word) else { throw .malformedExclusion(word) }
                excluded.insert(selector)
            }
        }
    }

    /// Why a card is left out, for a person; nil for one that counts.
    func reasonToLeaveOut(_ card: Card) -> String? {
        if let selector = excluded.first(where: { $0.matches(card) }) { return "GPU_EXCLUDE names \(selector)" }
        if excludesIntegrated && card.isIntegrated { return "integrated graphics (GPU_EXCLUDE has \"integrated\")" }
        if excludesDisplay && card.isDisplay { return "the screen's card (GPU_EXCLUDE has \"display\")" }
        return nil
    }

    /// Gives every card its number. A pin whose card is missing keeps its number free, so that no other card
    /// takes its place.
    func numbered(_ cards: [Card]) -> [Card] {
        var rest = cards.sorted { $0.address < $1.address }
        var numbered: [Card] = []
        for (number, selector) in pins {
            guard let index = rest.firstIndex(where: selector.matches) else { continue }
            var card = rest.remove(at: index)
            card.number = number
            numbered.append(card)
        }
        var next = 0
        for var card in rest {
            while pins[next] != nil { next += 1 }
            card.number = next
            next += 1
            numbered.append(card)
        }
        return numbered.sorted { $0.number < $1.number }
    }
}

/// Why a card that was asked for cannot be had.
package enum InventoryError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The number asked for, and those that there are.
    case noSuchCard(number: Int, available: [Int])
    /// A pinned number whose card is not in this machine now.
    case pinnedCardMissing(number: Int, selector: CardSelector)
    case malformedPin(String)
    case repeatedPin(String)
    case malformedExclusion(String)

    package var description: String {
        switch self {
        case .noSuchCard(let number, let available):
            if available.isEmpty {
                "there is no card \(number): this machine has none; gpu-worker --list tells why"
            } else {
                "there is no card \(number): this machine has \(Self.list(available)); gpu-worker --list shows them"
            }
        case .pinnedCardMissing(let number, let selector):
            "card \(number) is pinned to \(selector) by GPU_PINS, and no such card is in this machine now"
        case .malformedPin(let word):
            "GPU_PINS: \"\(word)\" is not of the form N=ADDRESS or N=UUID, such as 3=0000:05:00.0"
        case .repeatedPin(let word):
            "GPU_PINS: \"\(word)\" repeats a number or a card that is pinned already"
        case .malformedExclusion(let word):
            "GPU_EXCLUDE: \"\(word)\" is neither \"integrated\", \"display\", a PCI address nor a UUID"
        }
    }

    private static func list(_ numbers: [Int]) -> String { numbers.map(String.init).joined(separator: ", ") }
}
