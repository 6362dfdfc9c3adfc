import ArgumentParser
import Glibc
import ServiceSupport

extension AsyncParsableCommand {
    /// Runs a program from its command line; for its `main`.
    ///
    /// What ends it early is one line on standard error: a wrong command line says where to read on (exit code 64),
    /// a ``FatalError`` says what it says. Help and version go to standard output as they are.
    package static func runProgram() async {
        do {
            var command = try parseAsRoot()
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                try command.run()
            }
        } catch let error as FatalError {
            error.exit(program: _commandName)
        } catch let error as ArgumentParser.ExitCode {
            Glibc.exit(error.rawValue)
        } catch {
            leave(with: error)
        }
    }

    private static func leave(with error: any Error) -> Never {
        let code = exitCode(for: error)
        if code.isSuccess { exit(withError: error) }
        guard code == .validationFailure else {
            FatalError(.internalDefect, "\(error)").exit(program: _commandName)
        }
        let verbs = configuration.subcommands + configuration.groupedSubcommands.flatMap(\.subcommands)
        let names = verbs.map { $0._commandName }
        let verb = CommandLine.arguments.dropFirst().first { names.contains($0) }.map { " \($0)" } ?? ""
        let message = message(for: error).split(separator: "\n").joined(separator: " ")
        FatalError(.usage, "\(message) (see: \(_commandName)\(verb) --help)").exit(program: _commandName)
    }
}
