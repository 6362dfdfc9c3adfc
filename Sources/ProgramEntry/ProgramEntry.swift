import ArgumentParser
import Glibc
import ServiceSupport

extension AsyncParsableCommand {
    /// Runs a program from its command line; for its `main`.
    ///
    /// What ends it early is one line on standard error: a wrong command line says where to read on (exit code 64),
    /// a ``FatalError`` says what it says. Help and version go to standard output as they are.
    /// - Parameter hint: what to add to the parser's words on a wrong command line of that verb; nil for nothing.
    package static func runProgram(hint: (_ message: String, _ verb: String) -> String? = { _, _ in nil }) async {
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
            leave(with: error, hint)
        }
    }

    private static func leave(with error: any Error, _ hint: (String, String) -> String?) -> Never {
        let code = exitCode(for: error)
        if code.isSuccess { exit(withError: error) }
        guard code == .validationFailure else {
            FatalError(.internalDefect, "\(error)").exit(program: _commandName)
        }
        let verbs = configuration.subcommands + configuration.groupedSubcommands.flatMap(\.subcommands)
        let names = verbs.map { $0._commandName } + ["help"]
        let verb = CommandLine.arguments.dropFirst().first { names.contains($0) } ?? ""
        let words = message(for: error).split { $0 == "\n" || $0 == " " }.joined(separator: " ")
        let message = unknownVerb(among: names) ?? words
        let advice = hint(message, verb).map { "; \($0)" } ?? ""
        let help = verb.isEmpty ? "" : " \(verb)"
        FatalError(.usage, "\(message)\(advice) (see: \(_commandName)\(help) --help)").exit(program: _commandName)
    }

    /// What to say when the first word of the command line is none of the program's verbs.
    private static func unknownVerb(among names: [String]) -> String? {
        guard names.count > 1, let word = CommandLine.arguments.dropFirst().first, !word.hasPrefix("-"),
            !names.contains(word)
        else { return nil }
        let nearest = Spelling.nearest(to: word, among: names).map { "; did you mean \($0)?" } ?? ""
        return "there is no command \(quoted(word))\(nearest)"
    }
}
