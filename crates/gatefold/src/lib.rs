//! Routed-expert policies trained with PPO: facade library and command line.
