import Glibc
import ServiceSupport
import WireJSON

/// A made-up machine with graphics cards for a pool of one's own: the program `fake-rig` as our child.
///
/// It removes the machine when its standard input ends, which happens also when we are killed.
final class FakeRigProcess: Sendable {
    /// What a program needs in its environment to see this machine and no other.
    let environment: [String: String]
    let cardCount: Int
    private let child: ChildProcess
    private let line: ChildLine

    /// How long it may take to make the machine: it compiles a library first.
    private static let patience = Duration.seconds(120)
    /// How long it may take to remove it.
    private static let grace = Duration.seconds(10)

    /// - Parameter rig: the cards: "12xrx580,1xgtx1660".
    /// - Throws: when the program is not there, or cannot make such a machine.
    init(_ rig: String) async throws(FatalError) {
        let path = try Self.program()
        line = try ChildLine()
        child = try line.start(
            ChildProcess.Specification(
                name: "fake-rig",
                path: path,
                arguments: [rig, "--alive"],
                environment: HostInfo.environment,
                signalAtOurDeath: 0
            )
        )
        let text = await line.firstLine(within: Self.patience)
        let answer: JSON
        do throws(JSONError) {
            answer = try JSON(parsing: Array(text.utf8))
        } catch {
            child.signal(SIGKILL)
            throw FatalError(
                .usage,
                "--fake-rig \(rig): \(Printable.line(text.isEmpty ? "fake-rig said nothing" : text))"
            )
        }
        var environment: [String: String] = [:]
        for field in answer["environment"]?.objectValue ?? JSONObject() {
            environment[field.key] = field.value.stringValue
        }
        self.environment = environment
        cardCount = answer["cards"]?.arrayValue?.count ?? 0
    }

    /// Removes the machine.
    func end() async {
        line.hangUp()
        let killer = Task { [child] in
            do {
                try await Task.sleep(for: Self.grace)
                child.signal(SIGKILL)
            } catch {
                // It ended by itself.
            }
        }
        _ = await child.wait()
        killer.cancel()
    }

    /// It stands beside this program where both were built; packages do not have it.
    private static func program() throws(FatalError) -> String {
        do {
            return try Executables.ours("fake-rig")
        } catch {
            throw FatalError(
                .configuration,
                "--fake-rig needs the program fake-rig, which is for development and in none of the packages: build it "
                    + "where maestroctl was built, with `make` or `swift build --product fake-rig`"
            )
        }
    }
}
