import Foundation

/// Moves the readings of made-up cards a little, each in its own time, as if they worked: for showing, not for tests.
///
/// They stay where cards are well: below any limit, and never so busy that they would get no job.
package struct FakeLife {
    private struct State {
        let card: FakeCard
        /// Seconds from one busy time to the next.
        let period: Double
        /// Where in its period the card began, 0 to 1.
        let phase: Double
        var temperature = 45.0
    }

    /// How much time passes between two steps.
    package static let step = 2.0

    private var states: [State]
    private var generator: SplitMix64
    private var time = 0.0

    package init(_ cards: [FakeCard], seed: UInt64) {
        var generator = SplitMix64(seed: seed)
        states = cards.map {
            State(
                card: $0,
                period: Double.random(in: 60...240, using: &generator),
                phase: Double.random(in: 0..<1, using: &generator)
            )
        }
        self.generator = generator
    }

    /// Writes the next readings of every card that is there.
    package mutating func advance(_ rig: FakeRig) throws {
        time += Self.step
        for index in states.indices where rig.has(states[index].card) {
            let state = states[index]
            let wave = sin(2 * .pi * (time / state.period + state.phase))
            let busy = min(90, max(0, 35 + 30 * wave + Double.random(in: -6...6, using: &generator)))
            let temperature = state.temperature + (40 + 0.35 * busy - state.temperature) * 0.1
            states[index].temperature = temperature
            try write(busy: busy, temperature: temperature, of: state.card, to: rig)
        }
    }

    private func write(busy: Double, temperature: Double, of card: FakeCard, to rig: FakeRig) throws {
        switch card.kind {
        case .rx580:
            try rig.set(card, "gpu_busy_percent", "\(Int(busy))")
            try rig.set(card, "hwmon/temp1_input", "\(Int(temperature) * 1000)")
            try rig.set(card, "hwmon/power1_input", "\(Int(40 + busy) * 1_000_000)")
            try rig.set(card, "hwmon/fan1_input", "\(Int(20 * temperature))")
        case .gtx1660, .gtx1060:
            try rig.nvml(card, "busy", "\(Int(busy))")
            try rig.nvml(card, "temperature", "\(Int(temperature))")
            try rig.nvml(card, "power", "\(Int(20 + busy) * 1000)")
            try rig.nvml(card, "fan", "\(Int(temperature))")
        case .intel: break
        }
    }
}
