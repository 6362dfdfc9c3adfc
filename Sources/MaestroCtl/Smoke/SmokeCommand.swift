import ArgumentParser
import JobModel
import ServiceSupport
import WireJSON

struct SmokeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "smoke",
        abstract: "Proves an installation: server, streams, maestro, every worker, and the ways a job can end.",
        discussion: """
            Runs small jobs on every card and leaves nothing behind. Ends with 0 only if every check passes.

            Examples:
              maestroctl smoke --server nats://rig:4222
              maestroctl up --dir /tmp/pool --port 0 -- maestroctl smoke
            """
    )

    @OptionGroup var pool: PoolOptions
    @Option(help: ArgumentHelp("How long each check may take (default: 60s).", valueName: "time"))
    var deadline: TimeSpan?
    @Flag(help: "Print JSON, one line for each check.")
    var json = false

    func run() async throws {
        let client = try await pool.connect()
        let smoke = Smoke(client, deadline: deadline?.duration ?? .seconds(60))
        let report = SmokeReport(isJSON: json)
        let isInterrupted = await withTaskGroup(of: Bool.self) { group in
            group.addTask {
                await smoke.run(report)
                return false
            }
            group.addTask {
                for await _ in Interrupts.stream() { return true }
                return false
            }
            let first = await group.next() ?? false
            group.cancelAll()
            return first
        }
        await smoke.cleanUp()
        await client.close()
        if isInterrupted { throw ArgumentParser.ExitCode(Interrupts.exitStatus) }
        if !report.conclude() { throw quietExit(.failure) }
    }
}
