import ArgumentParser
import ProgramEntry
import ServiceSupport

/// What people type.
@main
struct Program: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "maestroctl",
        abstract: "Submits jobs to a pool of GPUs, and follows them.",
        discussion: """
            Where the pool is: --server, else NATS_URL, else the configuration file, else this machine.

            Try it without any pool:
              maestroctl up                                    a pool of its own, until Ctrl-C
              maestroctl submit --wait --shell 'echo hello'    in another terminal

            Exit codes: 0 it worked; 1 a job or a check failed; 64 wrong command line; 65 the task is refused; 66 no \
            such job or card; 69 no server or no maestro; 74 the journal cannot be written; 75 the deadline passed or the queue \
            is full; 77 wrong credentials; 78 wrong configuration.
            """,
        version: ProgramVersion.text,
        groupedSubcommands: [
            CommandGroup(
                name: "Jobs",
                subcommands: [
                    SubmitCommand.self, WaitCommand.self, WatchCommand.self, ShowCommand.self, ListCommand.self,
                    ResultCommand.self, LogsCommand.self, CancelCommand.self, RetryCommand.self, WhyCommand.self,
                ]
            ),
            CommandGroup(
                name: "Cards",
                subcommands: [
                    GpusCommand.self, CordonCommand.self, UncordonCommand.self, DrainCommand.self,
                    QuarantineCommand.self, ClearCommand.self,
                ]
            ),
            CommandGroup(name: "The pool", subcommands: [StatusCommand.self, StreamsCommand.self]),
            CommandGroup(name: "After a disaster", subcommands: [DoctorCommand.self, ReconcileCommand.self]),
            CommandGroup(name: "Running one", subcommands: [UpCommand.self, SmokeCommand.self]),
        ]
    )

    static func main() async { await runProgram() }
}
