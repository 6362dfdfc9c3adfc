/// The cards of a machine, each with its number, and what was left out.
package struct CardInventory: Sendable, Equatable {
    /// By number.
    package let cards: [Card]
    /// By address.
    package let leftOut: [LeftOutDevice]
    /// What stood in the way of looking, for a person: no PCI bus in a container.
    package let notes: [String]
    private let rules: InventoryRules

    /// Looks at the machine. A card whose driver is missing or sick is there all the same, degraded: otherwise it
    /// would change the numbers of those behind it. Sleeping cards are not woken.
    package static func scan(rules: InventoryRules = InventoryRules(), paths: SystemPaths = .machine) -> CardInventory {
        switch PCIBus.displayDevices() {
        case .failure(let failure):
            return CardInventory(
                cards: [],
                leftOut: [],
                notes: ["the PCI bus cannot be read: \(failure.reason)"],
                rules: rules
            )
        case .success(let devices):
            return CardInventory(devices, rules: rules, paths: paths)
        }
    }

    private init(cards: [Card], leftOut: [LeftOutDevice], notes: [String], rules: InventoryRules) {
        self.cards = cards
        self.leftOut = leftOut
        self.notes = notes
        self.rules = rules
    }

    private init(_ devices: [PCIDisplayDevice], rules: InventoryRules, paths: SystemPaths) {
        let hasNVIDIA = devices.contains { CardVendor(pciID: $0.vendorID) == .nvidia }
        let survey = CardSurvey(paths, hasNVIDIA: hasNVIDIA)
        var cards: [Card] = []
        var leftOut: [LeftOutDevice] = []
        for device in devices {
            guard let vendor = CardVendor(pciID: device.vendorID) else {
                let reason = "no GPU that jobs can use (PCI vendor \(hex(device.vendorID, 4)))"
                let model = device.deviceName.isEmpty ? hex(device.deviceID, 4) : device.deviceName
                leftOut.append(LeftOutDevice(address: device.address, model: model, reason: reason))
                continue
            }
            let card = survey.card(device, vendor: vendor)
            if let reason = rules.reasonToLeaveOut(card) {
                leftOut.append(LeftOutDevice(address: card.address, model: card.model, reason: reason))
            } else {
                cards.append(card)
            }
        }
        self.init(cards: rules.numbered(cards), leftOut: leftOut, notes: [], rules: rules)
    }

    /// The card with a number.
    package func card(_ number: Int) throws(InventoryError) -> Card {
        if let card = cards.first(where: { $0.number == number }) { return card }
        if let selector = rules.pins[number] { throw .pinnedCardMissing(number: number, selector: selector) }
        throw .noSuchCard(number: number, available: cards.map(\.number))
    }
}
