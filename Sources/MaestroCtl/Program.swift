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
              maestroctl up                                    a pool of its own
              maestroctl submit --wait --shell 'echo hello'    in another terminal

            Exit codes: 0 it worked; 1 a job or a check failed; 64 wrong command line; 65 the task is refused; 66 no \
            such job, card or file; 69 no server or no maestro; 74 the journal cannot be written; 75 the deadline passed \
            or the queue is full; 77 wrong credentials; 78 wrong configuration; 130 ended by Ctrl-C.
            """,
        version: ProgramVersion.text,
        groupedSubcommands: [
            CommandGroup(
                name: "Jobs",
                subcommands: [
                    SubmitCommand.self, WaitCommand.self, WatchCommand.self, TailStateCommand.self, ShowCommand.self,
                    ListCommand.self, ResultCommand.self, LogsCommand.self, CancelCommand.self, RetryCommand.self,
                    WhyCommand.self,
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

    static func main() async { await runProgram(hint: hint) }

    /// What a wrong command line most likely lacks.
    private static func hint(_ message: String, verb: String) -> String? {
        if verb == "submit", message.contains("nexpected argument") { return "the program to run stands after --" }
        if message.contains("invalid for '<ID>'") { return "an id holds letters, digits, '_' and '-', at most 128" }
        if message.contains("invalid for '<CARD>'") { return "a card is a number from 0, or a name such as rig1-3" }
        return message.contains("<time>' ") || message.hasSuffix("<time>'") ? "a time is 90, 10m, 1.5h or 2d" : nil
    }
}
