import FakeRig
import Foundation

/// Makes up a machine with graphics cards for programs in other languages:
///
///     fake-rig 12xrx580,8xgtx1660 [SEED]
///
/// prints one line of JSON, `{"root":…,"environment":{…}}`, and removes the machine when its stdin ends. The cards
/// are not real: nothing computes on them.
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

    private static func run(_ arguments: [String]) throws {
        let cards = try FakeCard.rig(
            arguments.first ?? "",
            seed: arguments.dropFirst().first.flatMap { UInt64($0) } ?? 1
        )
        let rig = try FakeRig(cards)
        let made: [String: Any] = ["root": rig.root.path, "environment": rig.environment]
        FileHandle.standardOutput.write(try JSONSerialization.data(withJSONObject: made) + Data("\n".utf8))
        _ = try FileHandle.standardInput.readToEnd()
        withExtendedLifetime(rig) {}
    }
}
