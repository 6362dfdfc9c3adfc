import ArgumentParser
import ClusterSimulation
import Glibc

/// Runs simulated clusters from seeds, and tells what breaks.
@main
struct ClusterSim: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cluster-sim",
        abstract: "Runs whole simulated clusters under faults, one for each seed.",
        discussion: """
            A seed that breaks a promise is run again with faults and jobs left out until nothing more can be, and its \
            history is printed. Ends with status 1 then, and also when a named fault or a legal step of a job never \
            happened in 1000 seeds or more.
            """
    )

    @Option(help: "How many seeds.")
    var seeds: UInt64 = 2000

    @Option(help: "The first seed.")
    var first: UInt64 = 1

    @Option(help: "Threads: one for each processor when left out.")
    var threads = max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))))

    @Option(help: "Take this rule of the design away first (see --mutants).")
    var mutant: String?

    @Flag(help: "For each rule of the design: take it away, and tell after how many seeds that was noticed.")
    var mutants = false

    @Flag(help: "Print the whole history of the first seed, whatever comes of it.")
    var tell = false

    @Flag(help: "Leave nothing out of a failing seed.")
    var noShrink = false

    @Flag(help: "Do not print the coverage.")
    var quiet = false

    @Flag(help: "Go on after a failing seed: a line for each.")
    var survey = false

    func run() async throws {
        if mutants { return try await tryMutants() }
        let chosen = try mutant.map { name in
            guard let chosen = Mutant(rawValue: name) else {
                let known = Mutant.allCases.map(\.rawValue).joined(separator: ", ")
                throw ValidationError("there is no mutant \(name); there are \(known)")
            }
            return chosen
        }
        if tell {
            let verdict = Simulation.run(Scenario(seed: first), mutant: chosen, isTelling: true, tellsAll: true)
            for line in verdict.history { print(line) }
            return try conclude(verdict.violations.isEmpty)
        }
        let clock = ContinuousClock()
        let start = clock.now
        let total = await Series(first: first, count: seeds, threads: threads, mutant: chosen, isSurvey: survey).run()
        let seconds = (clock.now - start) / .seconds(1)
        if let failing = total.failing, !survey { report(failing, chosen) }
        if !quiet, total.failing == nil { for line in total.coverage.lines { print(line) } }
        let rate = Double(total.count) / max(seconds, 0.001)
        let hours = Int(total.virtualSeconds / 3600)
        print("\(total.count) seeds from \(first) (\(total.steps) steps, \(hours) virtual hours)")
        print("in \(Int(seconds)) s: \(Int(rate)) seeds/s")
        let missing = total.count >= 1000 && chosen == nil ? total.coverage.missing : []
        for one in missing { print("never happened: \(one)") }
        try conclude(total.failing == nil && missing.isEmpty)
    }

    private func conclude(_ isGood: Bool) throws { if !isGood { throw ExitCode(1) } }

    private func report(_ failing: Scenario, _ mutant: Mutant?) {
        let smallest = noShrink ? failing : Simulation.shrink(failing, mutant: mutant)
        let verdict = Simulation.run(smallest, mutant: mutant, isTelling: true)
        print("SEED \(failing.seed) FAILS; with \(smallest.faults.count) faults and \(smallest.jobs.count) jobs:")
        for line in verdict.history { print("  \(line)") }
        for violation in verdict.violations { print("broken: \(violation)") }
        print("to see it again: make sim SEED=\(failing.seed)")
    }

    private func tryMutants() async throws {
        var isGood = true
        for mutant in Mutant.allCases {
            let total = await Series(first: first, count: seeds, threads: threads, mutant: mutant).run()
            let name = "\(mutant.rule): \(mutant.rawValue)"
            if let failing = total.failing {
                let verdict = Simulation.run(failing, mutant: mutant)
                print("\(name): noticed by seed \(failing.seed): \(verdict.violations.first ?? "?")")
            } else {
                print("\(name): NOT NOTICED in \(total.count) seeds")
                isGood = false
            }
        }
        try conclude(isGood)
    }
}

/// Many seeds, on several threads, up to the first that fails.
struct Series {
    let first: UInt64
    let count: UInt64
    let threads: Int
    let mutant: Mutant?
    var isSurvey = false

    struct Total: Sendable {
        var count: UInt64 = 0
        var steps: UInt64 = 0
        var virtualSeconds = 0.0
        var coverage = Coverage()
        /// The lowest seed that failed among those that were run.
        var failing: Scenario?

        mutating func add(_ verdict: Verdict) {
            count += 1
            steps += verdict.steps
            virtualSeconds += verdict.duration / .seconds(1)
            coverage.add(verdict.coverage)
            guard !verdict.violations.isEmpty else { return }
            if failing.map({ verdict.scenario.seed < $0.seed }) ?? true { failing = verdict.scenario }
        }

        mutating func add(_ other: Total) {
            count += other.count
            steps += other.steps
            virtualSeconds += other.virtualSeconds
            coverage.add(other.coverage)
            guard let seed = other.failing?.seed else { return }
            if failing.map({ seed < $0.seed }) ?? true { failing = other.failing }
        }
    }

    /// Seeds that a thread takes at a time.
    private static let batch: UInt64 = 16

    func run() async -> Total {
        await withTaskGroup(of: Total.self) { group in
            var total = Total()
            var next = first
            func start() {
                guard next - first < count, isSurvey || total.failing == nil else { return }
                let batch = next..<min(next + Self.batch, first + count)
                next = batch.upperBound
                let (mutant, isSurvey) = (mutant, isSurvey)
                group.addTask {
                    var part = Total()
                    for seed in batch where isSurvey || part.failing == nil {
                        let verdict = Simulation.run(Scenario(seed: seed), mutant: mutant)
                        if isSurvey, let broken = verdict.violations.first { print("seed \(seed): \(broken)") }
                        part.add(verdict)
                    }
                    return part
                }
            }
            for _ in 0..<max(1, threads) { start() }
            while let part = await group.next() {
                total.add(part)
                start()
            }
            return total
        }
    }
}
