import FakeRig
import Foundation

/// Makes up a machine with graphics cards for other programs:
///
///     fake-rig 12xrx580,8xgtx1660 [SEED] [--alive]
///
/// prints one line of JSON, `{"root":…,"environment":{…},"cards":[{"pci":…,"kind":…},…]}`, then carries out the
/// commands of its ``help``.
@main
struct FakeRigTool {
    static func main() {
        do {
            try run(Array(CommandLine.arguments.dropFirst()))
        } catch {
            FileHandle.standardError.write(Data("fake-rig: \(error)\n".utf8))
            exit(64)
        }
    }

    private static let help = """
        USAGE: fake-rig RIG [SEED] [--alive]

        Makes up a machine with graphics cards for other programs, as RIG says: 12xrx580,8xgtx1660
        The cards are not real: nothing computes on them. Prints one line of JSON (root, environment,
        cards), then carries out the commands on standard input, one in a line, and answers each
        by ok or by what was wrong. The machine is gone when standard input ends.

          --alive   the readings move a little by themselves

        COMMANDS (CARD is a PCI address):
          set CARD ATTRIBUTE VALUE             a file of the card: gpu_busy_percent
          fault CARD ATTRIBUTE [FAULT]         its reads fail ("errno 5"), or are slow ("delay 3000")
          write-fault CARD ATTRIBUTE [FAULT]   the same for writes
          answer CARD KEY [VALUE]              what amdgpu answers: errno, vram_lost, accel_working
          nvml CARD KEY [VALUE]                what NVML answers: temperature, return, xid
          pull CARD                            takes it out of the machine

        """

    private static func run(_ arguments: [String]) throws {
        if arguments.contains("--help") || arguments.contains("-h") {
            return FileHandle.standardOutput.write(Data(help.utf8))
        }
        let words = arguments.filter { $0 != "--alive" }
        let seed = words.dropFirst().first.flatMap { UInt64($0) } ?? 1
        let cards = try FakeCard.rig(words.first ?? "", seed: seed)
        let rig = try FakeRig(cards)
        var life = arguments.contains("--alive") ? FakeLife(cards, seed: seed) : nil
        let listed = cards.map { ["pci": $0.address, "kind": $0.kind.rawValue] }
        let made: [String: Any] = ["root": rig.root.path, "environment": rig.environment, "cards": listed]
        FileHandle.standardOutput.write(try JSONSerialization.data(withJSONObject: made) + Data("\n".utf8))
        var input = CommandInput()
        while true {
            switch input.next(within: life == nil ? nil : FakeLife.step) {
            case .line(let line):
                FileHandle.standardOutput.write(Data((answer(to: line, rig, cards) + "\n").utf8))
            case .nothing: try life?.advance(rig)
            case .end: return withExtendedLifetime(rig) {}
            }
        }
    }

    private static func answer(to line: String, _ rig: FakeRig, _ cards: [FakeCard]) -> String {
        // The value is the rest of the line, spaces and all.
        let words = line.split(separator: " ", maxSplits: 3).map(String.init)
        guard words.count >= 2, let card = cards.first(where: { $0.address == words[1] }) else {
            return "\"\(line)\" names no command and card of this machine"
        }
        do {
            try carryOut(words[0], card, words.dropFirst(2).first, words.dropFirst(3).first, rig)
            return "ok"
        } catch {
            return "\(error)"
        }
    }

    private static func carryOut(
        _ command: String,
        _ card: FakeCard,
        _ key: String?,
        _ value: String?,
        _ rig: FakeRig
    ) throws {
        switch (command, key, value) {
        case ("set", let key?, let value?): try rig.set(card, key, value)
        case ("fault", let key?, let value): try rig.fault(card, key, value)
        case ("write-fault", let key?, let value): try rig.writeFault(card, key, value)
        case ("answer", let key?, let value): try rig.answer(card, key, value)
        case ("nvml", let key?, let value): try rig.nvml(card, key, value)
        case ("pull", nil, nil): try rig.pull(card)
        default: throw UnknownCommand()
        }
    }

    private struct UnknownCommand: Error, CustomStringConvertible {
        let description =
            "there are the commands set, fault, write-fault, answer, nvml and pull, each with a card and what it needs"
    }
}
